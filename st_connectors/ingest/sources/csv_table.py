"""Read CSV and TSV files with a header row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import IO, Any

from st_connectors.ingest.documents import Document, DocumentError, Place
from st_connectors.ingest.sources.csv_rows import CsvRows, RowTooLarge
from st_connectors.ingest.sources.encodings import Decoder, as_buffered, is_undecoded
from st_connectors.ingest.sources.rows import Read, Reading, check_columns, row_document
from st_connectors.schema import FilterKind

__all__ = ["count_csv", "read_csv"]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SEPARATORS = ",;\t|"


def read_csv(stream: IO[bytes], reading: Reading, name: str, delimiter: str = ",") -> Read:
    """Yield the documents of rows; raise ValueError for a header without the columns that ``reading`` names.

    ``delimiter`` is used unless ``reading`` has another one.
    """
    decoder = Decoder(reading.encoding, reading.notes, name)
    with _open(stream, reading, decoder, name, delimiter) as (columns, rows):
        for place, row in _records(rows, reading, name):
            if reading.skip.one():
                continue
            yield row if isinstance(row, DocumentError) else _document(row, columns, decoder, reading, place)


def count_csv(stream: IO[bytes], reading: Reading, name: str, delimiter: str = ",") -> int:
    """Return the number of rows."""
    with _open(stream, reading, Decoder(reading.encoding, reading.notes, name), name, delimiter) as (_, rows):
        return sum(1 for _ in _records(rows, reading, name))


@contextmanager
def _open(
    stream: IO[bytes], reading: Reading, decoder: Decoder, name: str, delimiter: str
) -> Iterator[tuple[Sequence[str], CsvRows]]:
    """Yield the columns of a table and its rows."""
    separator = reading.delimiter or delimiter
    with decoder.reading(as_buffered(stream)) as text:
        rows = CsvRows(text, decoder, delimiter=separator, quote=reading.quote, limit=reading.max_bytes)
        try:
            columns = rows.read() or []
        except csv.Error as error:
            raise ValueError(f"{name} line 1: not CSV: {error}") from error
        except RowTooLarge as error:
            raise ValueError(str(error.row.refusal(reading.max_bytes, Place(name, 1, "line")))) from error
        if any(map(is_undecoded, columns)):
            raise ValueError(f"{name} line 1: {decoder.reason}")
        _check_header(columns, reading, name, separator)
        yield columns, rows


def _check_header(columns: Sequence[str], reading: Reading, name: str, separator: str) -> None:
    try:
        check_columns(columns, reading, name)
    except ValueError as error:
        others = [mark for mark in _SEPARATORS if mark != separator and len(columns) == 1 and mark in columns[0]]
        if not others:
            raise
        hint = f"the cells seem to be separated by {others[0]!r}: pass it as the delimiter"
        raise ValueError(f"{error}; {hint}") from error


def _records(rows: CsvRows, reading: Reading, name: str) -> Iterator[tuple[Place, list[str] | DocumentError]]:
    """Yield the cells of each row that is not blank, or why it cannot be read, with the place.

    The place is the last line of a row, or the first one of a row that cannot be read.
    """
    while True:
        first = rows.line + 1
        place = Place(name, first, "line")
        try:
            cells = rows.read()
        except csv.Error as error:
            yield place, DocumentError(_not_csv(error, first, rows.line), place=place, value={})
        except RowTooLarge as error:
            yield place, error.row.refusal(reading.max_bytes, place, _extent(first, rows.line))
        else:
            if cells is None:
                return
            if cells:
                yield Place(name, rows.line, "line"), cells


def _not_csv(error: csv.Error, first: int, last: int) -> str:
    """Return why a row cannot be read, which lines it contains, and what may help."""
    hint = "a quote is not closed, or quotes are ordinary characters (option quote)"
    return f"not CSV: {error}{_extent(first, last)}; {hint}"


def _extent(first: int, last: int) -> str:
    """Return which lines a row contains, if they are several."""
    return "" if first >= last else f"; lines {first} to {last} were read as one row"


def _document(
    cells: Sequence[str], columns: Sequence[str], decoder: Decoder, reading: Reading, place: Place
) -> Document | DocumentError:
    row: dict[Any, Any] = dict(zip_longest(columns, cells[: len(columns)]))
    if len(cells) > len(columns):
        row[None] = cells[len(columns) :]
    reason = _row_error(row, decoder)
    return (
        DocumentError(reason, place=place, value=row) if reason else row_document(row, reading, place, _convert_cells)
    )


def _row_error(row: Mapping[Any, Any], decoder: Decoder) -> str:
    """Return why a row cannot be read, or "" if it can."""
    if None in row:
        return "more cells than columns"
    if None in row.values():
        return "fewer cells than columns"
    is_bad = decoder.has_failed and any(is_undecoded(cell) for cell in row.values())
    return decoder.reason if is_bad else ""


def _convert_cells(row: Mapping[str, Any], reading: Reading) -> Mapping[str, Any]:
    """Convert the cells of filterable columns to their kinds; empty ones are absent. Raises DocumentError."""
    typed: dict[str, Any] = dict(row)
    for column, kind in reading.filterable.items():
        if column not in row:
            continue
        if row[column] == "":
            del typed[column]
            continue
        try:
            typed[column] = _convert(row[column], kind)
        except (ValueError, KeyError) as error:
            reason = f"{column!r} must be {kind}, not {row[column]!r}"
            raise DocumentError(reason, row.get(reading.id_field) or "") from error
    for column in (reading.id_field, *reading.text_fields):
        if typed.get(column) == "":
            typed[column] = None
    return typed


def _convert(text: str, kind: FilterKind) -> object:
    """Convert a cell to a value of a filterable kind; raise ValueError or KeyError."""
    match kind:
        case FilterKind.INT:
            return _to_int(text)
        case FilterKind.FLOAT:
            return float(text)
        case FilterKind.BOOL:
            return _BOOLEANS[text.lower()]
        case FilterKind.KEYWORD | FilterKind.DATE:
            return text


def _to_int(text: str) -> int:
    """Return a whole number, which pandas writes as 2020.0 in a column with empty cells; raise ValueError."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer() or abs(number) >= 2**53:
            raise
        return int(number)
