"""Convert rows of tables and JSON objects to documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from st_connectors.ingest.documents import (
    Document,
    DocumentError,
    Place,
    as_document,
    choose_fields,
    renamed_columns,
)
from st_connectors.ingest.sources.limits import MAX_BYTES
from st_connectors.ingest.sources.meter import Meter
from st_connectors.ingest.sources.notes import Notes
from st_connectors.ingest.sources.plain_values import Unreadable
from st_connectors.ingest.sources.skip import Skip
from st_connectors.ingest.sources.templates import Template
from st_connectors.schema import FilterKind

__all__ = ["Read", "Reading", "check_columns", "read_row", "row_document"]

Read: TypeAlias = Iterator[Document | DocumentError]
"""Documents with their places, and errors that ingest reports as refusals."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read.

    ``id_field`` and ``text_fields`` are the columns of the id and the text (several are joined by newlines).
    ``filterable`` are the kinds of filterable columns, to which the cells of a CSV file are converted. ``templates``
    are fields composed of columns, by field name. ``delimiter`` separates the cells of a CSV file; None means a comma,
    or a tab in a TSV file. ``quote`` encloses cells that contain it; in a file without such cells it is empty, and
    quotes are ordinary characters. ``encoding`` is that of text; None means UTF-8, or UTF-16 or UTF-32 after a byte
    order mark. A document of more than ``max_bytes`` bytes, in files of texts, JSON and CSV, is refused without being
    held in memory. ``notes`` receives what concerns a whole source, and ``meter`` how much of the files has been read.
    ``skip`` is the number of documents at the start that are not converted; it is used up while the sources are read.
    """

    id_field: str = "id"
    text_fields: Sequence[str] = ("text",)
    filterable: Mapping[str, FilterKind] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    delimiter: str | None = None
    quote: str = '"'
    encoding: str | None = None
    max_bytes: int = MAX_BYTES
    notes: Notes = field(default_factory=Notes, compare=False)
    meter: Meter = field(default_factory=Meter, compare=False)
    skip: Skip = field(default_factory=Skip, compare=False)

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"expected max_bytes of at least 1, got {self.max_bytes}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every table must have."""
        composed = [column for template in self.templates.values() for column in template.columns]
        plain = [name for name in (self.id_field, *self.text_fields) if name not in self.templates]
        return tuple(dict.fromkeys([*plain, *composed]))


def row_document(
    row: Mapping[str, Any],
    reading: Reading,
    place: Place,
    convert: Callable[[Mapping[str, Any], Reading], Mapping[str, Any]] | None = None,
) -> Document | DocumentError:
    """Convert a row to a document, or to an error if it is invalid; messages use the column names of the source.

    ``convert`` is applied to the columns after the templates, and may raise DocumentError.
    """
    try:
        composed = _compose(row, reading, place)
        columns = composed if convert is None else convert(composed, reading)
        chosen = choose_fields(columns, reading.id_field, reading.text_fields)
        if "original_id" in chosen or "original_text" in chosen:
            _note_renamed(renamed_columns(columns, reading.id_field, reading.text_fields), reading, place)
    except DocumentError as error:
        return DocumentError(error.reason, error.id, place, row)
    try:
        return replace(as_document(chosen), place=place)
    except DocumentError as error:
        return DocumentError(_with_columns(error.reason, reading), error.id, place, row)


def read_row(
    row: Mapping[str, Any],
    reading: Reading,
    place: Place,
    convert: Callable[[Mapping[str, Any], Reading], Mapping[str, Any]] | None = None,
) -> Document | DocumentError:
    """Convert a row as ``row_document`` does, or refuse it if it has a value that is Unreadable."""
    reasons = [value.reason for value in row.values() if isinstance(value, Unreadable)]
    if not reasons:
        return row_document(row, reading, place, convert)
    identifier = "" if reading.id_field in reading.templates else row.get(reading.id_field, "")
    readable = {name: value for name, value in row.items() if not isinstance(value, Unreadable)}
    return DocumentError(reasons[0], str(identifier) if isinstance(identifier, str | int) else "", place, readable)


def _compose(row: Mapping[str, Any], reading: Reading, place: Place) -> Mapping[str, Any]:
    """Return the columns of a row with the fields that are composed of them."""
    if not reading.templates:
        return row
    names = {name: f"original_{name}" for name in reading.templates if name in row}
    for name, new in names.items():
        if new in row:
            raise DocumentError(f"the column {name!r} cannot be stored as {new!r}, which exists: rename one")
    _note_renamed(names, reading, place)
    filled = {name: template.fill(row) for name, template in reading.templates.items()}
    columns = {names.get(key, key): value for key, value in row.items()}
    return columns | {name: value for name, value in filled.items() if value is not None}


def _note_renamed(names: Mapping[str, str], reading: Reading, place: Place) -> None:
    for name, new in names.items():
        reading.notes.add(f"{place.source}: the column {name!r} is stored in the payload as {new!r}")


def _with_columns(reason: str, reading: Reading) -> str:
    reason = reason.replace("'id'", repr(reading.id_field))
    return reason.replace("'text'", repr(reading.text_fields[0])) if len(reading.text_fields) == 1 else reason


def check_columns(columns: Sequence[str], reading: Reading, name: str) -> None:
    """Raise ValueError for a table without the columns that ``reading`` names, or with two columns of one name.

    ``name`` is the name of the source.
    """
    have = ", ".join(columns) or "none"
    missing = [column for column in reading.columns if column not in columns]
    if missing:
        raise ValueError(
            f"{name}: no column {', '.join(map(repr, missing))}; the columns are {have}: pass the right ones"
        )
    repeated = sorted(column for column, count in Counter(columns).items() if count > 1)
    if repeated:
        raise ValueError(f"{name}: the header repeats {', '.join(map(repr, repeated))}; the columns are {have}")
