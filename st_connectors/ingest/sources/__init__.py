"""Sources: documents from files in several formats and from databases, each with its place in the source."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from st_connectors.ingest.sources.arrow_table import count_arrow, count_parquet, read_arrow, read_parquet
from st_connectors.ingest.sources.compressed import decompressed
from st_connectors.ingest.sources.csv_table import count_csv, read_csv
from st_connectors.ingest.sources.encodings import BUFFER, check_encoding
from st_connectors.ingest.sources.formats import Format, format_of
from st_connectors.ingest.sources.identity import (
    STANDARD_INPUT,
    Identity,
    Source,
    describe_path,
    describe_query,
    difference,
    reading_options,
)
from st_connectors.ingest.sources.json_values import count_json, read_json
from st_connectors.ingest.sources.jsonl import count_jsonl, read_jsonl
from st_connectors.ingest.sources.limits import MAX_BYTES
from st_connectors.ingest.sources.meter import Meter
from st_connectors.ingest.sources.notes import Notes
from st_connectors.ingest.sources.rows import Read, Reading
from st_connectors.ingest.sources.skip import Skip
from st_connectors.ingest.sources.sql import SqlSource, read_sql, sql_source
from st_connectors.ingest.sources.stateful import Stateful, StatefulItems, is_stateful, items_of, plain_item
from st_connectors.ingest.sources.templates import Template, parse_template
from st_connectors.ingest.sources.text_files import (
    TEXT_SUFFIXES,
    check_text_ids,
    count_texts,
    read_texts,
    text_files,
)

__all__ = [
    "MAX_BYTES",
    "STANDARD_INPUT",
    "TEXT_SUFFIXES",
    "Format",
    "Identity",
    "Meter",
    "Notes",
    "Read",
    "Reading",
    "Skip",
    "Source",
    "SqlSource",
    "Stateful",
    "StatefulItems",
    "Template",
    "check_encoding",
    "check_text_ids",
    "count_path",
    "describe_path",
    "describe_query",
    "difference",
    "format_of",
    "is_stateful",
    "items_of",
    "parse_template",
    "plain_item",
    "read_path",
    "read_sql",
    "read_stream",
    "reading_options",
    "size_of_path",
    "sql_source",
]


def read_path(path: Path, form: Format, reading: Reading, *, name: str | None = None) -> Read:
    """Yield the documents of a file or folder; raise OSError if it cannot be opened.

    ``name`` is the id of a text file, by default its file name.
    """
    match form:
        case Format.TEXT:
            yield from read_texts(path, reading, name)
        case Format.PARQUET:
            yield from read_parquet(path, reading)
        case Format.ARROW:
            yield from read_arrow(path, reading)
        case Format.JSONL | Format.JSON | Format.CSV | Format.TSV:
            with path.open("rb", BUFFER) as stream, reading.meter.reading(stream.tell, path.stat().st_size):
                yield from read_stream(stream, form, reading, str(path))


def read_stream(stream: IO[bytes], form: Format, reading: Reading, name: str) -> Read:
    """Yield the documents of an open stream; ``name`` is the source in their places and in messages.

    Compressed data are decompressed. Raises ValueError for a format that needs a file.
    """
    if form in {Format.PARQUET, Format.ARROW, Format.TEXT}:
        raise ValueError(f"{name}: {form} cannot be read from a stream: write it to a file, or pass jsonl, json or csv")
    return _read_rows(stream, form, reading, name)


def _read_rows(stream: IO[bytes], form: Format, reading: Reading, name: str) -> Read:
    with decompressed(stream, name) as plain:
        match form:
            case Format.CSV | Format.TSV:
                yield from read_csv(plain, reading, name, _delimiter(form))
            case Format.JSON:
                yield from read_json(plain, reading, name)
            case _:
                yield from read_jsonl(plain, reading, name)


def _delimiter(form: Format) -> str:
    return "\t" if form is Format.TSV else ","


def count_path(path: Path, form: Format, reading: Reading) -> int:
    """Return the number of documents of a file or folder, refused ones included, without converting them."""
    match form:
        case Format.TEXT:
            return count_texts(path, reading)
        case Format.PARQUET:
            return count_parquet(path)
        case Format.ARROW:
            return count_arrow(path)
        case _:
            pass
    with path.open("rb", BUFFER) as stream, decompressed(stream, str(path)) as plain:
        match form:
            case Format.CSV | Format.TSV:
                return count_csv(plain, reading, str(path), _delimiter(form))
            case Format.JSON:
                return count_json(plain, reading, str(path))
            case _:
                return count_jsonl(plain, reading, str(path))


def size_of_path(path: Path, form: Format) -> int:
    """Return the number of bytes of a file, or of the text files of a folder."""
    return sum(file.stat().st_size for file in (text_files(path) if form is Format.TEXT else [path]))
