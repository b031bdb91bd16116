"""Read CSV and TSV files with a header row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any

from st_connectors.ingest.documents import DocumentError, Place
from st_connectors.ingest.sources.encodings import Decoder, as_buffered, is_undecoded
from st_connectors.ingest.sources.rows import Read, Reading, check_columns, row_document
from st_connectors.schema import FilterKind

__all__ = ["count_csv", "read_csv"]

LONGEST_CELL = 64 * 1024 * 1024
"""The maximum number of characters of a CSV cell; the default of the csv module, 131,072, is too small for a book."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SEPARATORS = ",;\t|"


def read_csv(stream: IO[bytes], reading: Reading, name: str, delimiter: str = ",") -> Read:
    """Yield the documents of rows; raise ValueError for a header without the columns that ``reading`` names.

    ``delimiter`` is used unless ``reading`` has another one.
    """
    for line, row, reason in _rows(stream, reading, name, delimiter):
        if reading.skip.one():
            continue
        place = Place(name, line, "line")
        if reason:
            yield DocumentError(reason, place=place, value=row)
        else:
            yield row_document(row, reading, place, _convert_cells)


def count_csv(stream: IO[bytes], reading: Reading, name: str, delimiter: str = ",") -> int:
    """Return the number of rows."""
    return sum(1 for _ in _rows(stream, reading, name, delimiter))


def _rows(
    stream: IO[bytes], reading: Reading, name: str, delimiter: str
) -> Iterator[tuple[int, Mapping[Any, Any], str]]:
    """Yield each row with the number of its last line, and the reason if it cannot be read."""
    decoder = Decoder(reading.encoding, reading.notes, name)
    # Undecoded bytes are lone surrogates, so that only their row is refused.
    lines = (decoder.repair(line) or line for line in decoder.lines(as_buffered(stream)))
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    first = next(lines, "")
    if is_undecoded(first):
        raise ValueError(f"{name} line 1: {decoder.reason}")
    separator = reading.delimiter or delimiter
    table = csv.DictReader(
        chain([first], lines),
        strict=True,
        delimiter=separator,
        quotechar=reading.quote or None,
        quoting=csv.QUOTE_MINIMAL if reading.quote else csv.QUOTE_NONE,
    )
    try:
        columns = table.fieldnames or ()
    except csv.Error as error:
        raise ValueError(f"{name} line 1: not CSV: {error}") from error
    _check_header(columns, reading, name, separator)
    while True:
        try:
            row = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            first_line = table.line_num + 1
            yield first_line, {}, _not_csv(error, first_line, table.reader.line_num)
        else:
            yield table.line_num, row, _row_error(row, decoder)


def _check_header(columns: Sequence[str], reading: Reading, name: str, separator: str) -> None:
    try:
        check_columns(columns, reading, name)
    except ValueError as error:
        others = [mark for mark in _SEPARATORS if mark != separator and len(columns) == 1 and mark in columns[0]]
        if not others:
            raise
        hint = f"the cells seem to be separated by {others[0]!r}: pass it as the delimiter"
        raise ValueError(f"{error}; {hint}") from error


def _not_csv(error: csv.Error, first: int, last: int) -> str:
    """Return why a row cannot be read, which lines it contains, and what may help."""
    extent = "" if first >= last else f"; lines {first} to {last} were read as one row"
    hint = "a quote is not closed, or quotes are ordinary characters (option quote)"
    return f"not CSV: {error}{extent}; {hint}"


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
