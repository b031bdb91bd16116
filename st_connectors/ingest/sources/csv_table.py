"""Read CSV files with a header row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from st_connectors.ingest.documents import Document, DocumentError, Place
from st_connectors.ingest.sources.rows import Read, Reading, check_columns, row_document
from st_connectors.schema import FilterKind

__all__ = ["read_csv"]

LONGEST_CELL = 64 * 1024 * 1024
"""The maximum number of characters of a CSV cell; the default of the csv module, 131,072, is too small for a book."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_UNDECODED = re.compile("[\udc80-\udcff]")


def read_csv(stream: Iterable[bytes], reading: Reading, name: str) -> Read:
    """Yield the documents of rows; raise ValueError for a header without the columns that ``reading`` names."""
    # Bytes that are not UTF-8 become lone surrogates here, so that only their row is refused.
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
            yield DocumentError(f"not CSV: {error}", place=Place(name, table.line_num + 1, "line"))
            continue
        place = Place(name, table.line_num, "line")
        reason = _row_error(row)
        yield DocumentError(reason, place=place, value=row) if reason else _document(row, reading, place)


def _check_header(columns: Sequence[str], reading: Reading, name: str) -> None:
    check_columns(columns, reading, name)
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        have = ", ".join(columns)
        raise ValueError(f"{name}: the header repeats {', '.join(map(repr, repeated))}; the columns are {have}")


def _row_error(row: Mapping[Any, Any]) -> str:
    """Return why a row cannot be read, or "" if it can."""
    if None in row:
        return "more cells than columns"
    if None in row.values():
        return "fewer cells than columns"
    return "not UTF-8" if any(_UNDECODED.search(cell) for cell in row.values()) else ""


def _document(row: Mapping[str, str], reading: Reading, place: Place) -> Document | DocumentError:
    typed: dict[str, Any] = dict(row)
    for column, kind in reading.filterable.items():
        if column not in row:
            continue
        if row[column] == "":
            del typed[column]
            continue
        try:
            typed[column] = _convert(row[column], kind)
        except (ValueError, KeyError):
            reason = f"{column!r} must be {kind}, not {row[column]!r}"
            return DocumentError(reason, row.get(reading.id_field) or "", place, row)
    for column in (reading.id_field, *reading.text_fields):
        if typed.get(column) == "":
            typed[column] = None
    return row_document(typed, reading, place)


def _convert(text: str, kind: FilterKind) -> object:
    """Convert a cell to a value of a filterable kind; raise ValueError or KeyError."""
    match kind:
        case FilterKind.INT:
            return int(text)
        case FilterKind.FLOAT:
            return float(text)
        case FilterKind.BOOL:
            return _BOOLEANS[text.lower()]
        case FilterKind.KEYWORD | FilterKind.DATE:
            return text
