"""What a document looks like: ours, with everything typed and hidden, and other people's, plain.

Ours::

    {"id": "a", "payload": "{…}", "filter": {"year": [1999]}, "vector": {"dense": [0.6, 0.8], "sparse": {"1012": 0.83}}, "text": {"text": "…"}}

The payload is one string that is neither indexed nor parsed, because no mapping holds a number and an object under one key, and JSON
parsers of engines keep neither 1 apart from 1.0 nor the order of keys. Filterable fields are copied into fields of the one type that answers their
filters exactly. ``id`` is a copy of ``_id`` that hits can be sorted by, as ``_id`` itself cannot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np

from st_connectors._lucene.encoding import decoded, encoded
from st_connectors._lucene.keys import DIGITS, Keys
from st_connectors._lucene.names import escaped
from st_connectors.filters import parse_date
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField, TextField
from st_connectors.store import Parts, Record, Vector
from st_core.vectors import SparseVector

__all__ = [
    "Body",
    "Hidden",
    "Layout",
    "Plain",
    "filter_properties",
    "micros",
    "properties",
    "text_properties",
]

Body: TypeAlias = dict[str, Any]

ID = "id"
PAYLOAD = "payload"
FILTER = "filter"
VECTOR = "vector"
TEXT = "text"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 8_000
"""Characters of a keyword that are indexed as they are. Lucene takes terms of 32,766 bytes; longer values are compared by their digest."""
_DIGEST = "\x01sha256:"


@dataclass(frozen=True, slots=True)
class Hidden:
    """Our own collections: any id, the payload exactly as given."""

    schema: Schema
    keys: Keys = DIGITS

    @property
    def filterable(self) -> Mapping[str, FilterKind]:
        """What can be filtered on."""
        return self.schema.filterable

    @property
    def order(self) -> list[Body]:
        """How hits are sorted: ``(-score, id)``."""
        return [{"_score": "desc"}, {ID: "asc"}]

    def vector(self, field: str) -> str:
        """The path of a dense or sparse field."""
        return f"{VECTOR}.{escaped(field)}"

    def text(self, field: str) -> str:
        """The path of a text field."""
        return f"{TEXT}.{escaped(field)}"

    def filter(self, field: str) -> str:
        """The path that filters on a payload field ask about."""
        return f"{FILTER}.{escaped(field)}"

    def typed(self, kind: FilterKind, value: object) -> list[Any]:
        """The value as its field holds it, or nothing, so that nothing can equal it."""
        return _TYPED[kind](value)

    def to_source(self, record: Record) -> Body:
        """The document of a record."""
        source: Body = {ID: record.id, PAYLOAD: encoded(record.payload).decode()}
        if copies := self._copies(record.payload):
            source[FILTER] = copies
        if record.vectors:
            source[VECTOR] = {
                escaped(name): vector_body(self.keys, name, vector) for name, vector in record.vectors.items()
            }
        if texts := self._texts(record.payload):
            source[TEXT] = texts
        return source

    def _copies(self, payload: Mapping[str, Any]) -> Body:
        copies: Body = {}
        for name, kind in self.schema.filterable.items():
            value = payload.get(name)
            items = value if isinstance(value, list | tuple) else [value]
            if kept := [one for item in items for one in self.typed(kind, item)]:
                copies[escaped(name)] = kept
        return copies

    def _texts(self, payload: Mapping[str, Any]) -> Body:
        found = {
            escaped(name): payload.get(field.source)
            for name, field in self.schema.fields.items()
            if isinstance(field, TextField)
        }
        return {name: text for name, text in found.items() if isinstance(text, str) and text}

    def selector(self, parts: Parts) -> list[str] | bool:
        """``_source``. Vectors are named, since Elasticsearch 9.2 leaves them out where they are not."""
        wanted = [PAYLOAD] if Parts.PAYLOAD in parts else []
        return ([*wanted, VECTOR] if Parts.VECTORS in parts else wanted) or False

    def from_source(self, record_id: str, source: Mapping[str, Any] | None, parts: Parts) -> Record:
        """The record that a document holds, with what was asked for of it."""
        held = source or {}
        payload = decoded(held[PAYLOAD]) if PAYLOAD in held else {}
        if Parts.VECTORS not in parts:
            return Record(record_id, {}, payload)
        vectors = held.get(VECTOR) or {}
        named = {name: vectors.get(escaped(name)) for name in self.schema.fields}
        return Record(record_id, _vectors(self.schema, self.keys, named), payload)


@dataclass(frozen=True, slots=True)
class Plain:
    """Other people's collections: ``_source`` is the payload, less its vectors; field names are the index's own paths."""

    schema: Schema
    keys: Keys = DIGITS

    @property
    def filterable(self) -> Mapping[str, FilterKind]:
        """What can be filtered on."""
        return self.schema.filterable

    @property
    def order(self) -> list[Body]:
        """How hits are sorted: by score, for there need be no field that holds their ids."""
        return [{"_score": "desc"}]

    def vector(self, field: str) -> str:
        """The field is the path."""
        return field

    def text(self, field: str) -> str:
        """The field is the path."""
        return field

    def filter(self, field: str) -> str:
        """The field is the path."""
        return field

    def typed(self, kind: FilterKind, value: object) -> list[Any]:
        """The value in the type of its kind; dates as they are written."""
        if kind in (FilterKind.KEYWORD, FilterKind.DATE):
            return [value] if isinstance(value, str) else []
        return _TYPED[kind](value)

    def to_source(self, record: Record) -> Body:
        """The payload with the vectors put where the index has them."""
        source = json.loads(json.dumps(record.payload))
        for name, vector in record.vectors.items():
            *steps, last = name.split(".")
            inner = source
            for step in steps:
                inner = inner.setdefault(step, {})
            inner[last] = vector_body(self.keys, name, vector)
        return dict(source)

    def selector(self, parts: Parts) -> list[str] | bool | Body:
        """``_source``."""
        names = [name for name, field in self.schema.fields.items() if not isinstance(field, TextField)]
        if Parts.PAYLOAD in parts:
            return ["*", *names] if Parts.VECTORS in parts else {"excludes": names} if names else True
        return names if Parts.VECTORS in parts and names else False

    def from_source(self, record_id: str, source: Mapping[str, Any] | None, parts: Parts) -> Record:
        """The record that a document holds."""
        payload = dict(source or {})
        values = {
            name: _taken(payload, name.split("."))
            for name, field in self.schema.fields.items()
            if not isinstance(field, TextField)
        }
        return Record(record_id, _vectors(self.schema, self.keys, values), payload if Parts.PAYLOAD in parts else {})


Layout: TypeAlias = Hidden | Plain


def _taken(source: dict[str, Any], steps: list[str]) -> Any:
    """The value at a path, taken out of the document; written with dots or as objects."""
    whole = ".".join(steps)
    if whole in source:
        return source.pop(whole)
    inner = source.get(steps[0])
    if len(steps) == 1 or not isinstance(inner, dict):
        return None
    kept = dict(inner)
    value = _taken(kept, steps[1:])
    source[steps[0]] = kept
    if not kept:
        del source[steps[0]]
    return value


def properties(schema: Schema, vectors: Mapping[str, Body]) -> Body:
    """The properties of our mapping; ``vectors`` are the engine's own for dense and sparse fields, by field name."""
    made: Body = {
        ID: {"type": "keyword", "index": False},
        PAYLOAD: {"type": "keyword", "index": False, "doc_values": False},
    }
    for name, inner in (
        (FILTER, filter_properties(schema)),
        (VECTOR, {escaped(field): body for field, body in vectors.items()}),
        (TEXT, text_properties(schema)),
    ):
        if inner:
            made[name] = {"properties": inner}
    return made


def filter_properties(schema: Schema) -> Body:
    """The typed copies of filterable fields."""
    return {escaped(name): {"type": _TYPES[kind]} for name, kind in schema.filterable.items()}


def text_properties(schema: Schema) -> Body:
    """The copies of texts; the standard analyser keeps words of every language apart and folds case."""
    fields = [name for name, field in schema.fields.items() if isinstance(field, TextField)]
    return {escaped(name): {"type": "text", "analyzer": "standard"} for name in fields}


def vector_body(keys: Keys, name: str, vector: Vector) -> Any:
    """A vector as a document holds it."""
    return keys.weights(name, vector) if isinstance(vector, SparseVector) else vector


def _vectors(schema: Schema, keys: Keys, values: Mapping[str, Any]) -> dict[str, Vector]:
    """Vectors by field name from what a document holds; fields of text, and keys that stand for no index, are left out."""
    kept: dict[str, Vector] = {}
    for name, field in schema.fields.items():
        value = values.get(name)
        if not value:
            continue
        match field:
            case DenseField():
                kept[name] = np.asarray(value, dtype=np.float32)
            case SparseField():
                if (vector := keys.vector(name, value)) is not None:
                    kept[name] = vector
            case TextField():
                pass
    return kept


def micros(text: str) -> int:
    """Microseconds since 1970 of a date: engines' own dates hold milliseconds, or end in 2262."""
    return (parse_date(text) - _EPOCH) // timedelta(microseconds=1)


def _keyword(value: object) -> list[str]:
    if not isinstance(value, str):
        return []
    if len(value) <= _LONGEST and not value.startswith(_DIGEST):
        return [value]
    return [_DIGEST + hashlib.sha256(value.encode()).hexdigest()]


def _whole(value: object) -> list[int]:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return [value] if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else []


def _real(value: object) -> list[float]:
    # Lucene sorts -0.0 below 0.0 and holds them apart; adding 0.0 makes them one.
    return [float(value) + 0.0] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _date(value: object) -> list[int]:
    try:
        return [micros(value)] if isinstance(value, str) else []
    except ValueError:
        return []


_TYPED: Mapping[FilterKind, Callable[[object], list[Any]]] = {
    FilterKind.KEYWORD: _keyword,
    FilterKind.INT: _whole,
    FilterKind.FLOAT: _real,
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
"""The type of the copy of each kind."""
