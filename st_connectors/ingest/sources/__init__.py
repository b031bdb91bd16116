"""Documents from files: JSONL, CSV, Parquet, text and Markdown; what cannot be read as a document is handed on as a refusal with its place."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import IO, Any

from st_connectors.ingest.documents import Document, DocumentError, as_document, choose_fields
from st_connectors.schema import FilterKind
from st_core.errors import missing_extra

__all__ = ["TEXT_SUFFIXES", "Format", "Read", "Reading", "format_of", "read_path", "read_stream"]

Read = Iterator["Document | DocumentError"]
"""What ingest takes: documents, and errors that it reports as refused records."""

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})

LONGEST_CELL = 64 * 1024 * 1024
"""Characters of a CSV cell; the csv module's own 131,072 is less than a book."""

_UNDECODED = re.compile("[\udc80-\udcff]")


class Format(StrEnum):
    """How a source is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TEXT = "text"
    """A folder of text or Markdown files, or one such file; ids are the paths."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Which columns are the id and the text (several texts are joined by newlines), and the kinds of filterable columns, by which CSV cells are read."""

    id_field: str = "id"
    text_fields: Sequence[str] = ("text",)
    filterable: Mapping[str, FilterKind] = field(default_factory=dict)


def format_of(path: Path) -> Format:
    """The format by the name of a file, or TEXT for a folder; raises ValueError where the name does not tell."""
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
            raise ValueError(f"{path}: the ending {suffix!r} tells no format: pass one of {', '.join(Format)}")


def read_path(path: Path, form: Format, reading: Reading) -> Read:
    """The documents of a file or folder, read as they are asked for; raises OSError where it cannot be opened."""
    match form:
        case Format.TEXT:
            yield from _texts(path)
        case Format.PARQUET:
            yield from _parquet(path, reading)
        case Format.JSONL | Format.CSV:
            with path.open("rb") as stream:
                yield from read_stream(stream, form, reading, str(path))


def read_stream(stream: IO[bytes], form: Format, reading: Reading, name: str) -> Read:
    """The documents of an open JSONL or CSV stream; ``name`` is for messages."""
    match form:
        case Format.JSONL:
            return _jsonl(stream, reading, name)
        case Format.CSV:
            return _csv(stream, reading, name)
        case Format.PARQUET | Format.TEXT:
            raise ValueError(f"{name}: {form} cannot be read from a stream: write it to a file, or pass jsonl or csv")


def _document(row: Mapping[str, Any], reading: Reading, place: str) -> Document | DocumentError:
    """A row as a document, or why not and where."""
    try:
        chosen = choose_fields(row, reading.id_field, reading.text_fields)
    except DocumentError as error:
        return DocumentError(f"{place}: {error}", error.id)
    try:
        return as_document(chosen)
    except DocumentError as error:
        return DocumentError(f"{place}: {_named(str(error), reading)}", error.id)


def _named(reason: str, reading: Reading) -> str:
    """A reason in terms of the columns as they are called in the source."""
    reason = reason.replace("'id'", repr(reading.id_field))
    return reason.replace("'text'", repr(reading.text_fields[0])) if len(reading.text_fields) == 1 else reason


def _jsonl(stream: Iterable[bytes], reading: Reading, name: str) -> Read:
    for number, raw in enumerate(stream, 1):
        place = f"{name} line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not line:
                continue
            row = json.loads(line, parse_constant=_no_constant)
        except UnicodeDecodeError:
            yield DocumentError(f"{place}: not UTF-8")
        except json.JSONDecodeError as error:
            yield DocumentError(f"{place}: not JSON: {error.msg} at column {error.colno}")
        except ValueError as error:
            yield DocumentError(f"{place}: not JSON: {error}")
        except RecursionError:
            yield DocumentError(f"{place}: nested too deeply")
        else:
            if isinstance(row, dict):
                yield _document(row, reading, place)
            else:
                yield DocumentError(f"{place}: a record is a JSON object, not {type(row).__name__}")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _csv(stream: Iterable[bytes], reading: Reading, name: str) -> Read:
    # Bytes that are no UTF-8 become lone surrogates here, so that only their row is refused.
    lines = (raw.decode("utf-8-sig" if n == 0 else "utf-8", "surrogateescape") for n, raw in enumerate(stream))
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    first = next(lines, "")
    if _UNDECODED.search(first):
        raise ValueError(f"{name} line 1: not UTF-8")
    table = csv.DictReader(chain([first], lines), strict=True)
    try:
        columns = table.fieldnames or ()
    except csv.Error as error:
        raise ValueError(f"{name} line 1: not CSV: {error}") from error
    _check_header(columns, reading, name)
    while True:
        try:
            row = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield DocumentError(f"{name} line {table.line_num + 1}: not CSV: {error}")
            continue
        place = f"{name} line {table.line_num}"
        if None in row:
            yield DocumentError(f"{place}: more cells than columns")
        elif None in row.values():
            yield DocumentError(f"{place}: fewer cells than columns")
        elif any(_UNDECODED.search(cell) for cell in row.values()):
            yield DocumentError(f"{place}: not UTF-8")
        else:
            yield _csv_document(row, reading, place)


def _check_header(columns: Sequence[str], reading: Reading, name: str) -> None:
    """Raise ValueError for a header without the id or the text, or with a column twice, of which one would be lost."""
    have = ", ".join(columns) or "none"
    missing = [column for column in (reading.id_field, *reading.text_fields) if column not in columns]
    if missing:
        raise ValueError(
            f"{name}: no column {', '.join(map(repr, missing))}; the columns are {have}: pass the right ones"
        )
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ValueError(f"{name}: the column {', '.join(map(repr, twice))} stands twice; the columns are {have}")


def _csv_document(row: Mapping[str, str], reading: Reading, place: str) -> Document | DocumentError:
    typed: dict[str, Any] = dict(row)
    for column, kind in reading.filterable.items():
        if column not in row:
            continue
        if row[column] == "":
            del typed[column]
            continue
        try:
            typed[column] = _cell(row[column], kind)
        except ValueError:
            return DocumentError(f"{place}: {column!r} is no {kind}: {row[column]!r}", row.get(reading.id_field) or "")
    for column in (reading.id_field, *reading.text_fields):
        if typed.get(column) == "":
            typed[column] = None
    return _document(typed, reading, place)


def _cell(text: str, kind: FilterKind) -> object:
    """The text of a cell as a value of a filterable kind."""
    match kind:
        case FilterKind.INT:
            return int(text)
        case FilterKind.FLOAT:
            return float(text)
        case FilterKind.BOOL:
            return (
                {"true": True, "1": True, "false": False, "0": False}.get(text.lower()) if _is_bool(text) else int("")
            )
        case FilterKind.KEYWORD | FilterKind.DATE:
            return text


def _is_bool(text: str) -> bool:
    return text.lower() in {"true", "false", "1", "0"}


def _parquet(path: Path, reading: Reading) -> Read:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise missing_extra("parquet", f"reading {path}") from error
    with path.open("rb") as stream, _opened(parquet, stream, path) as table:
        columns = table.schema_arrow.names
        missing = [column for column in (reading.id_field, *reading.text_fields) if column not in columns]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}; the columns are {', '.join(columns)}")
        number = 0
        for batch in table.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                present = {key: _jsonable(value) for key, value in row.items() if value is not None}
                yield _document(present, reading, f"{path} row {number}")


def _opened(parquet: Any, stream: IO[bytes], path: Path) -> Any:
    try:
        return parquet.ParquetFile(stream)
    except (ValueError, OSError) as error:  # ArrowInvalid is the one, and a cut-off file may be the other
        raise ValueError(f"{path}: not Parquet: {error}") from error


def _jsonable(value: Any) -> Any:
    """A Parquet value as JSON: moments as ISO 8601, decimals as numbers; what else is no JSON the store refuses by name."""
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return float(value)
        case list():
            return [_jsonable(item) for item in value]
        case dict():
            return {key: _jsonable(item) for key, item in value.items()}
        case _:
            return value


def _texts(path: Path) -> Read:
    if path.is_dir():
        files = sorted(found for found in path.rglob("*") if found.suffix.lower() in TEXT_SUFFIXES and found.is_file())
        if not files:
            raise ValueError(f"{path}: no file ends in {', '.join(sorted(TEXT_SUFFIXES))}")
        root = path
    else:
        files, root = [path], path.parent
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            yield DocumentError(f"{file}: not UTF-8, at byte {error.start}", name)
        except OSError as error:
            yield DocumentError(f"{file}: {error.strerror}", name)
        else:
            yield Document(name, text)
