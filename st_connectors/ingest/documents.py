"""Convert values to documents, and report why a value is not a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from st_connectors.chunks import CHUNK_KEY, SYNC_KEY

__all__ = [
    "Document",
    "DocumentError",
    "Place",
    "as_document",
    "choose_fields",
    "document_id",
    "renamed_columns",
    "size_of",
]

LARGEST_FLOAT_ID = 2**53 - 1
"""The largest float that stands for a single integer, so that two ids never become one."""


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a document in its source.

    ``source`` is the path or another name of the source. ``position`` is the number of the ``unit`` (line, row),
    counted from 1; it is None if the source is one document.
    """

    source: str
    position: int | None = None
    unit: str = "record"

    def __str__(self) -> str:
        return self.source if self.position is None else f"{self.source} {self.unit} {self.position}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"source": self.source, "position": self.position, "unit": self.unit}


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its id and payload.

    ``place`` is the position in its source, or None if unknown; it is ignored in comparisons.
    """

    id: str
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = field(default=None, compare=False)


class DocumentError(ValueError):
    """A value that is not a document: the reason, the id or "", and the place and the value if they are known."""

    def __init__(self, reason: str, identifier: str = "", place: Place | None = None, value: object = None) -> None:
        """Store the reason, the id, the place and the value."""
        super().__init__(reason)
        self.reason = reason
        self.id = identifier
        self.place = place
        self.value = value

    def __str__(self) -> str:
        return self.reason if self.place is None else f"{self.place}: {self.reason}"


def as_document(value: object, text_key: str = "text") -> Document:
    """Convert a value to a document whose payload contains the text under ``text_key``; raise DocumentError if invalid.

    A mapping must contain ``id`` and ``text_key``; all keys except ``id`` become the payload. An integer id becomes its
    decimal digits, and so does a float without a fraction, as which pandas returns integers of a column with gaps.
    """
    match value:
        case Document():
            return _from_document(value, text_key)
        case Mapping():
            return _from_mapping(value, text_key)
        case DocumentError():
            raise value
        case _:
            raise DocumentError(f"a document must be a mapping or a Document, not {type(value).__name__}")


def _from_document(document: Document, text_key: str) -> Document:
    identifier = document_id(document.id)
    text = _check_text(document.text, identifier, text_key)
    if not isinstance(document.payload, Mapping):
        raise DocumentError(f"payload must be a mapping, not {type(document.payload).__name__}", identifier)
    if document.payload.get(text_key, text) != text:
        raise DocumentError(f"payload has another {text_key!r} than the document's text", identifier)
    return Document(identifier, text, _check_payload(document.payload, identifier) | {text_key: text}, document.place)


def _from_mapping(value: Mapping[Any, Any], text_key: str) -> Document:
    if value.get("id") is None:
        raise DocumentError("'id' is missing")
    identifier = document_id(value["id"])
    if value.get(text_key) is None:
        raise DocumentError(f"{text_key!r} is missing", identifier)
    text = _check_text(value[text_key], identifier, text_key)
    payload = {key: item for key, item in value.items() if key != "id"}
    return Document(identifier, text, _check_payload(payload, identifier))


def document_id(value: object) -> str:
    """Return an id as a string, of integers and whole floats their digits; raise DocumentError for other values."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_FLOAT_ID:
        value = int(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        try:
            return str(int(value))
        except ValueError as error:  # more digits than Python converts
            raise DocumentError("'id' is an integer with too many digits") from error
    if not isinstance(value, str):
        raise DocumentError(f"'id' must be a string or an integer, not {type(value).__name__}")
    if not value:
        raise DocumentError("'id' is empty")
    if not _is_unicode(value):
        raise DocumentError("'id' contains half of a surrogate pair, which is not a character", ascii(value))
    return value


def _check_text(value: object, identifier: str, text_key: str) -> str:
    if not isinstance(value, str):
        raise DocumentError(f"{text_key!r} must be a string, not {type(value).__name__}", identifier)
    if not _is_unicode(value):
        raise DocumentError(f"{text_key!r} contains half of a surrogate pair, which is not a character", identifier)
    return value


def _check_payload(payload: Mapping[Any, Any], identifier: str) -> dict[str, Any]:
    for key in payload:
        if not isinstance(key, str):
            raise DocumentError(f"payload keys must be strings, not {type(key).__name__}", identifier)
    if CHUNK_KEY in payload:
        raise DocumentError(f"the payload key {CHUNK_KEY!r} is reserved for windows of split documents", identifier)
    if SYNC_KEY in payload:
        raise DocumentError(f"the payload key {SYNC_KEY!r} is reserved for the hashes of a sync", identifier)
    return dict(payload)


def _is_unicode(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def choose_fields(row: Mapping[str, Any], id_field: str, text_fields: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a row with the id under ``id`` and the text under ``text``.

    A single text field is renamed. Several text fields are joined by newlines, except empty ones, and also remain in
    the payload under their own names. Another column named ``id`` or ``text`` is stored as ``original_id`` or
    ``original_text``. Raises DocumentError if a field is missing or the row has both names.
    """
    identifier = row.get(id_field)
    shown = str(identifier) if isinstance(identifier, str | int) else ""
    if id_field not in row:
        raise DocumentError(f"{id_field!r} is missing")
    if not any(name in row for name in text_fields):
        verb = "is" if len(text_fields) == 1 else "are"
        raise DocumentError(f"{' and '.join(map(repr, text_fields))} {verb} missing", shown)
    text_field = text_fields[0] if len(text_fields) == 1 else id_field
    chosen = {key: value for key, value in row.items() if key not in (id_field, text_field)}
    for name, new in renamed_columns(row, id_field, text_fields).items():
        if new in row:
            raise DocumentError(f"the column {name!r} cannot be stored as {new!r}, which exists: rename one", shown)
        chosen[new] = chosen.pop(name)
    return {"id": identifier, **chosen, "text": _text_of(row, text_fields)}


def renamed_columns(row: Mapping[str, Any], id_field: str, text_fields: Sequence[str]) -> dict[str, str]:
    """Return the columns that the id or the text would overwrite, with the names under which they are stored."""
    taken = (id_field, text_fields[0] if len(text_fields) == 1 else id_field)
    return {name: f"original_{name}" for name in ("id", "text") if name in row and name not in taken}


def _text_of(row: Mapping[str, Any], text_fields: Sequence[str]) -> Any:
    """Return the value of a single text field, or the joined values of several, None if all are empty."""
    if len(text_fields) == 1:
        return row.get(text_fields[0])
    parts = [row.get(name) for name in text_fields]
    return "\n".join(str(part) for part in parts if part is not None and part != "") or None


def size_of(value: object) -> int:
    """Estimate the size of a value as JSON in bytes, by which batches are limited."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, dict | Mapping):
        size = 2
        for key, item in value.items():
            # Most values are strings, for which this function is not called.
            size += len(str(key)) + 4 + (len(item) + 2 if isinstance(item, str) else size_of(item))
        return size
    if isinstance(value, list | tuple):
        return 2 + sum(1 + size_of(item) for item in value)
    return 8
