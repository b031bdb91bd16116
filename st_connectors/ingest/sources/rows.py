"""Convert rows of tables and JSON lines to documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from st_connectors.ingest.documents import Document, DocumentError, Place, as_document, choose_fields
from st_connectors.schema import FilterKind

__all__ = ["Read", "Reading", "check_columns", "row_document"]

Read: TypeAlias = Iterator[Document | DocumentError]
"""Documents with their places, and errors that ingest reports as refusals."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Which columns are the id and the text (several are joined by newlines), and the kinds of filterable columns.

    The cells of a CSV file are converted to these kinds.
    """

    id_field: str = "id"
    text_fields: Sequence[str] = ("text",)
    filterable: Mapping[str, FilterKind] = field(default_factory=dict)


def row_document(row: Mapping[str, Any], reading: Reading, place: Place) -> Document | DocumentError:
    """Convert a row to a document, or to an error if it is invalid; messages use the column names of the source."""
    try:
        chosen = choose_fields(row, reading.id_field, reading.text_fields)
    except DocumentError as error:
        return DocumentError(error.reason, error.id, place, row)
    try:
        return replace(as_document(chosen), place=place)
    except DocumentError as error:
        return DocumentError(_with_columns(error.reason, reading), error.id, place, row)


def _with_columns(reason: str, reading: Reading) -> str:
    reason = reason.replace("'id'", repr(reading.id_field))
    return reason.replace("'text'", repr(reading.text_fields[0])) if len(reading.text_fields) == 1 else reason


def check_columns(columns: Sequence[str], reading: Reading, name: str) -> None:
    """Raise ValueError if the id column or a text column is missing; ``name`` is the name of the source."""
    missing = [column for column in (reading.id_field, *reading.text_fields) if column not in columns]
    if missing:
        have = ", ".join(columns) or "none"
        raise ValueError(
            f"{name}: no column {', '.join(map(repr, missing))}; the columns are {have}: pass the right ones"
        )
