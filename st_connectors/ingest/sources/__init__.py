"""Sources: documents from JSONL, CSV, Parquet, text and Markdown files, each with its place in the source."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import IO

from st_connectors.ingest.sources.csv_table import read_csv
from st_connectors.ingest.sources.jsonl import read_jsonl
from st_connectors.ingest.sources.parquet import read_parquet
from st_connectors.ingest.sources.rows import Read, Reading
from st_connectors.ingest.sources.text_files import TEXT_SUFFIXES, read_texts

__all__ = ["TEXT_SUFFIXES", "Format", "Read", "Reading", "format_of", "read_path", "read_stream"]


class Format(StrEnum):
    """The format of a source."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TEXT = "text"
    """A folder of text or Markdown files, or one such file; ids are the paths."""


def format_of(path: Path) -> Format:
    """Return the format by the suffix of a file, TEXT for a folder; raise ValueError for other suffixes."""
    if path.is_dir() or path.suffix.lower() in TEXT_SUFFIXES:
        return Format.TEXT
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return Format.JSONL
        case ".csv":
            return Format.CSV
        case ".parquet" | ".pq":
            return Format.PARQUET
        case suffix:
            raise ValueError(f"{path}: the suffix {suffix!r} has no known format: pass one of {', '.join(Format)}")


def read_path(path: Path, form: Format, reading: Reading) -> Read:
    """Yield the documents of a file or folder; raise OSError if it cannot be opened."""
    match form:
        case Format.TEXT:
            yield from read_texts(path)
        case Format.PARQUET:
            yield from read_parquet(path, reading)
        case Format.JSONL | Format.CSV:
            with path.open("rb") as stream:
                yield from read_stream(stream, form, reading, str(path))


def read_stream(stream: IO[bytes], form: Format, reading: Reading, name: str) -> Read:
    """Return the documents of an open JSONL or CSV stream; ``name`` is the source in their places and in messages."""
    match form:
        case Format.JSONL:
            return read_jsonl(stream, reading, name)
        case Format.CSV:
            return read_csv(stream, reading, name)
        case Format.PARQUET | Format.TEXT:
            raise ValueError(f"{name}: {form} cannot be read from a stream: write it to a file, or pass jsonl or csv")
