"""Map records to documents, for collections of this package and for adopted ones.

A document of a collection of this package contains typed copies of everything that is searched or filtered::

    {"id": "a", "payload": "{…}", "filter": {"year": [1999]},
     "vector": {"dense": [0.6, 0.8], "sparse": {"1012": 0.83}}, "text": {"text": "…"}}

The payload is one string that is neither indexed nor parsed, because no mapping accepts a number and an object under
the same key, and the JSON parsers of the engines preserve neither the difference between 1 and 1.0 nor the order of
keys. Each filterable field is copied into a field of the type for which filters are exact. ``id`` is a copy of ``_id``,
by which hits cannot be sorted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeAlias

import numpy as np

from st_connectors._lucene.encoding import decode_json, encode_json
from st_connectors._lucene.keys import DIGITS, Keys
from st_connectors._lucene.names import escape_field
from st_connectors._matching import to_float, to_int64, values_at
from st_connectors.filters import parse_date
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField, TextField
from st_connectors.store import Parts, Record, Vector
from st_core.vectors import SparseVector

__all__ = [
    "FILTER",
    "STANDARD",
    "AdoptedLayout",
    "Body",
    "Layout",
    "OwnLayout",
    "filter_properties",
    "properties",
    "to_micros",
]

Body: TypeAlias = dict[str, Any]

ID = "id"
PAYLOAD = "payload"
FILTER = "filter"
VECTOR = "vector"
TEXT = "text"
STANDARD = "standard"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 8_000
"""The maximum number of characters of a keyword that is indexed unchanged; longer keywords are compared by their hash,
because Lucene accepts at most 32,766 bytes."""
_DIGEST = "\x01sha256:"


@dataclass(frozen=True, slots=True)
class OwnLayout:
    """The documents of collections of this package: ids are arbitrary, and payloads are returned unchanged."""

    is_private: ClassVar[bool] = True
    """Whether no other tool is expected to read the documents."""
    schema: Schema
    keys: Keys = DIGITS

    @property
    def filterable(self) -> Mapping[str, FilterKind]:
        """The kind of each filterable field."""
        return self.schema.filterable

    @property
    def id(self) -> str:
        """The path of the copy of ``_id``."""
        return self.path(ID)

    @property
    def order(self) -> list[Body]:
        """The sort order of hits, ``(-score, id)``."""
        return [{"_score": "desc"}, {self.id: "asc"}]

    @property
    def refusal_hint(self) -> str | None:
        """What to do if the server refuses a document, for messages; None if its message says it."""
        return None

    def path(self, *steps: str) -> str:
        """Return the path of one of the package's own fields."""
        return ".".join(steps)

    def vector(self, field: str) -> str:
        """Return the path of a dense or sparse field."""
        return self.path(VECTOR, escape_field(field))

    def text(self, field: str) -> str:
        """Return the path of a text field."""
        return self.path(TEXT, escape_field(field))

    def filter(self, field: str) -> str:
        """Return the path of the typed copy of a filterable field."""
        return self.path(FILTER, escape_field(field))

    def typed(self, kind: FilterKind, value: object) -> list[Any]:
        """Return a list of the value in the type of its field, or an empty list for a value of another type."""
        return _TYPED[kind](value)

    def to_source(self, record: Record) -> Body:
        """Return the document of a record."""
        source: Body = {ID: record.id, PAYLOAD: encode_json(record.payload).decode()}
        if copies := self.copies(record.payload):
            source[FILTER] = copies
        if record.vectors:
            source[VECTOR] = self.vectors_body(record)
        if texts := self._texts(record.payload):
            source[TEXT] = texts
        return source

    def copies(self, payload: Mapping[str, Any]) -> Body:
        """Return the typed copies of the filterable fields of a payload."""
        copies: Body = {}
        for name, kind in self.schema.filterable.items():
            if terms := [term for item in values_at(payload, name) for term in self.typed(kind, item)]:
                copies[escape_field(name)] = terms
        return copies

    def vectors_body(self, record: Record) -> Body:
        """Return the vectors of a record as they are stored in a document."""
        return {escape_field(name): _vector_body(self.keys, name, vector) for name, vector in record.vectors.items()}

    def _texts(self, payload: Mapping[str, Any]) -> Body:
        texts = {
            escape_field(name): payload.get(field.source)
            for name, field in self.schema.fields.items()
            if isinstance(field, TextField)
        }
        return {name: text for name, text in texts.items() if isinstance(text, str) and text}

    def selector(self, parts: Parts) -> list[str] | bool | Body:
        """Return the ``_source`` option for the requested parts.

        The path of the vectors is always listed, because Elasticsearch 9.2 otherwise omits them.
        """
        paths = [PAYLOAD] if Parts.PAYLOAD in parts else []
        return ([*paths, VECTOR] if Parts.VECTORS in parts else paths) or False

    def from_source(self, record_id: str, source: Mapping[str, Any] | None, parts: Parts) -> Record:
        """Return the record of a document with the requested parts."""
        document = source or {}
        payload = decode_json(document[PAYLOAD]) if PAYLOAD in document else {}
        return Record(record_id, self.read_vectors(document) if Parts.VECTORS in parts else {}, payload)

    def read_vectors(self, document: Mapping[str, Any]) -> dict[str, Vector]:
        """Return the vectors of a document by field name."""
        vectors = document.get(VECTOR) or {}
        return _vectors(self.schema, self.keys, {name: vectors.get(escape_field(name)) for name in self.schema.fields})


@dataclass(frozen=True, slots=True)
class AdoptedLayout:
    """The documents of adopted collections.

    The payload is ``_source`` without its vectors, and field names are paths of the index.
    """

    is_private: ClassVar[bool] = False
    schema: Schema
    keys: Keys = DIGITS

    @property
    def filterable(self) -> Mapping[str, FilterKind]:
        """The kind of each filterable field."""
        return self.schema.filterable

    @property
    def order(self) -> list[Body]:
        """The sort order of hits, by score only, because an adopted index need not have a field with ids."""
        return [{"_score": "desc"}]

    def vector(self, field: str) -> str:
        """Return the field name, which is its path."""
        return field

    def text(self, field: str) -> str:
        """Return the field name, which is its path."""
        return field

    def filter(self, field: str) -> str:
        """Return the field name, which is its path."""
        return field

    def typed(self, kind: FilterKind, value: object) -> list[Any]:
        """Return a list of the value in the type of its kind, or an empty list for a value of another type.

        Dates are returned unchanged.
        """
        if kind in (FilterKind.KEYWORD, FilterKind.DATE):
            return [value] if isinstance(value, str) else []
        return _TYPED[kind](value)

    def to_source(self, record: Record) -> Body:
        """Return the payload with the vectors at their paths."""
        source = json.loads(json.dumps(record.payload))
        for name, vector in record.vectors.items():
            *steps, last = name.split(".")
            inner = source
            for step in steps:
                inner = inner.setdefault(step, {})
            inner[last] = _vector_body(self.keys, name, vector)
        return dict(source)

    def selector(self, parts: Parts) -> list[str] | bool | Body:
        """Return the ``_source`` option for the requested parts."""
        names = [name for name, field in self.schema.fields.items() if not isinstance(field, TextField)]
        if Parts.PAYLOAD in parts:
            return ["*", *names] if Parts.VECTORS in parts else {"excludes": names} if names else True
        return names if Parts.VECTORS in parts and names else False

    def from_source(self, record_id: str, source: Mapping[str, Any] | None, parts: Parts) -> Record:
        """Return the record of a document with the requested parts."""
        payload = dict(source or {})
        values = {
            name: _pop_path(payload, name.split("."))
            for name, field in self.schema.fields.items()
            if not isinstance(field, TextField)
        }
        return Record(record_id, _vectors(self.schema, self.keys, values), payload if Parts.PAYLOAD in parts else {})


Layout: TypeAlias = OwnLayout | AdoptedLayout


def _pop_path(source: dict[str, Any], steps: list[str]) -> Any:
    """Remove and return the value at a path, which may be one key with dots, or keys of nested objects.

    Objects that become empty are removed. Nested objects are copied before they are changed.
    """
    whole = ".".join(steps)
    if whole in source:
        return source.pop(whole)
    inner = source.get(steps[0])
    if len(steps) == 1 or not isinstance(inner, dict):
        return None
    rest = dict(inner)
    value = _pop_path(rest, steps[1:])
    source[steps[0]] = rest
    if not rest:
        del source[steps[0]]
    return value


def properties(schema: Schema, vectors: Mapping[str, Body], analysers: Mapping[str, str]) -> Body:
    """Return the properties of the mapping of a collection of this package.

    ``vectors`` contains the properties of vector fields by field name, ``analysers`` the analysers of text fields.
    """
    tree: Body = {
        ID: {"type": "keyword", "index": False},
        PAYLOAD: {"type": "keyword", "index": False, "doc_values": False},
    }
    for name, inner in (
        (FILTER, filter_properties(schema)),
        (VECTOR, {escape_field(field): body for field, body in vectors.items()}),
        (TEXT, _text_properties(schema, analysers)),
    ):
        if inner:
            tree[name] = {"properties": inner}
    return tree


def filter_properties(schema: Schema) -> Body:
    """Return the properties of the typed copies of filterable fields."""
    return {escape_field(name): {"type": _TYPES[kind]} for name, kind in schema.filterable.items()}


def _text_properties(schema: Schema, analysers: Mapping[str, str]) -> Body:
    """Return the properties of the copies of texts.

    The standard analyser splits words of every language and folds case.
    """
    fields = [name for name, field in schema.fields.items() if isinstance(field, TextField)]
    return {escape_field(name): {"type": "text", "analyzer": analysers.get(name, STANDARD)} for name in fields}


def _vector_body(keys: Keys, name: str, vector: Vector) -> Any:
    """Return a vector as it is stored in a document: weights by key for a sparse vector, else the array."""
    return keys.weights(name, vector) if isinstance(vector, SparseVector) else vector


def _vectors(schema: Schema, keys: Keys, values: Mapping[str, Any]) -> dict[str, Vector]:
    """Return the vectors of a document by field name; a sparse field with a key that has no index is skipped."""
    vectors: dict[str, Vector] = {}
    for name, field in schema.fields.items():
        value = values.get(name)
        if not value:
            continue
        match field:
            case DenseField():
                vectors[name] = np.asarray(value, dtype=np.float32)
            case SparseField():
                if (vector := keys.vector(name, value)) is not None:
                    vectors[name] = vector
            case TextField():
                pass
    return vectors


def to_micros(text: str) -> int:
    """Return a date in microseconds since 1970.

    The date types of the engines are not used, because they have millisecond resolution or end in 2262.
    """
    return (parse_date(text) - _EPOCH) // timedelta(microseconds=1)


def _keyword(value: object) -> list[str]:
    if not isinstance(value, str):
        return []
    if len(value) <= _LONGEST and not value.startswith(_DIGEST):
        return [value]
    return [_DIGEST + hashlib.sha256(value.encode()).hexdigest()]


def _whole_number(value: object) -> list[int]:
    number = to_int64(value)
    return [] if number is None else [number]


def _real_number(value: object) -> list[float]:
    number = to_float(value)
    # Lucene distinguishes -0.0 from 0.0; adding 0.0 turns -0.0 into 0.0.
    return [] if number is None else [number + 0.0]


def _date(value: object) -> list[int]:
    try:
        return [to_micros(value)] if isinstance(value, str) else []
    except ValueError:
        return []


_TYPED: Mapping[FilterKind, Callable[[object], list[Any]]] = {
    FilterKind.KEYWORD: _keyword,
    FilterKind.INT: _whole_number,
    FilterKind.FLOAT: _real_number,
    FilterKind.BOOL: lambda value: [value] if isinstance(value, bool) else [],
    FilterKind.DATE: _date,
}

_TYPES: Mapping[FilterKind, str] = {
    FilterKind.KEYWORD: "keyword",
    FilterKind.INT: "long",
    FilterKind.FLOAT: "double",
    FilterKind.BOOL: "boolean",
    FilterKind.DATE: "long",
}
"""The mapping type of the typed copy of each kind."""
