"""Map records to points, for own collections and for those created by someone else.

Own collections store the payload as one JSON string, because neither the order of keys nor the difference between 1 and
1.0 survives every protocol of Qdrant (gRPC has no integers in lists of mixed numbers, a server's payload is unordered),
and a copy of each filterable field in the type that its index expects. Presence has a key of its own, since
``is_empty`` tests a key regardless of its values' kind.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from st_connectors._matching import to_float, to_int64
from st_connectors.filters import parse_date
from st_connectors.schema import FilterKind, Schema

__all__ = ["INDEXES", "AdoptedLayout", "Layout", "OwnLayout", "PointId", "to_rfc3339"]

PointId: TypeAlias = int | str

ID = "_st_id"
PAYLOAD = "_st_payload"
PRESENT = "_st_present"
FILTER = "_st_f_"
# The namespace of the UUIDs that represent ids; it must never change, since stored points are addressed by them.
NAMESPACE = uuid.UUID("6f0c1c0e-5b0a-5f43-9a53-0b4ad2f6f7d1")
_encode_json = json.JSONEncoder(separators=(",", ":")).encode
_decode_json = json.JSONDecoder().decode


@dataclass(frozen=True, slots=True)
class OwnLayout:
    """The points of a collection created by this package: any string as id, the payload exactly as passed."""

    schema: Schema

    @property
    def filterable(self) -> Mapping[str, FilterKind]:
        """The kinds of the filterable fields."""
        return self.schema.filterable

    def accepts(self, record_id: str) -> bool:
        """Return whether a point can have the id: any can."""
        del record_id
        return True

    def point_id(self, record_id: str) -> PointId | None:
        """Return the UUID that represents the record's id."""
        return to_uuid5(record_id)

    def record_id(self, record_id: str) -> str:
        """Return the id as results spell it."""
        return record_id

    def to_payload(self, record_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the point's payload."""
        point_payload: dict[str, Any] = {ID: record_id, PAYLOAD: _encode_json(payload)}
        present = []
        for name, kind in self.schema.filterable.items():
            value = payload.get(name)
            items = [item for item in (value if isinstance(value, list | tuple) else [value]) if item is not None]
            if items:
                present.append(name)
                point_payload[self.key(name)] = _unwrap_single(
                    [converted for item in items for converted in self.convert(kind, item)]
                )
        if present:
            point_payload[PRESENT] = _unwrap_single(present)
        return point_payload

    def from_payload(self, point_id: PointId, payload: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """Return the record's id and payload."""
        point_payload = payload or {}
        # A point added without this package has no id key; it is returned under its point id.
        record_payload = _decode_json(point_payload[PAYLOAD]) if PAYLOAD in point_payload else {}
        return point_payload.get(ID, str(point_id)), record_payload

    def selector(self, *, payload: bool) -> bool | list[str]:
        """Return the ``with_payload`` of requests that need the ids, and the payload or not."""
        return [ID, PAYLOAD] if payload else [ID]

    def key(self, field: str) -> str:
        """Return the JSON path that a filter on the field tests."""
        return _filter_key(field)

    def exists(self, field: str) -> dict[str, Any]:
        """Return the condition that the field has a value."""
        return {"key": PRESENT, "match": {"value": field}}

    def indexes(self) -> dict[str, str]:
        """Return the payload indexes, from JSON path to Qdrant's name of the index."""
        if not self.schema.filterable:
            return {}
        kinds = {**INDEXES, FilterKind.BOOL: "keyword"}
        return {PRESENT: "keyword"} | {self.key(name): kinds[kind] for name, kind in self.schema.filterable.items()}

    def convert(self, kind: FilterKind, value: object) -> list[Any]:
        """Return the value as its key stores it, or nothing for a value of another kind.

        Booleans are words, since qdrant-edge 0.9 sends True as 1.
        """
        converted = _CONVERT[kind](value)
        return [str(item).lower() for item in converted] if kind is FilterKind.BOOL else converted


@dataclass(frozen=True, slots=True)
class AdoptedLayout:
    """The points of a collection created by someone else: integers or UUIDs as ids, the payload unchanged.

    Field names in filters are Qdrant's JSON paths.
    """

    filterable: Mapping[str, FilterKind]

    def accepts(self, record_id: str) -> bool:
        """Return whether a point can have the id: an integer or a UUID."""
        return self.point_id(record_id) is not None

    def point_id(self, record_id: str) -> PointId | None:
        """Return the integer or UUID that the id spells; None for any other, since Qdrant has no other ids."""
        if record_id.isdecimal() and record_id.isascii() and int(record_id) < 2**64:
            return int(record_id)
        try:
            return str(uuid.UUID(record_id))
        except ValueError:
            return None

    def record_id(self, record_id: str) -> str:
        """Return the id as results spell it: a UUID in lower case with hyphens."""
        return str(self.point_id(record_id))

    def to_payload(self, record_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload unchanged."""
        del record_id
        return dict(payload)

    def from_payload(self, point_id: PointId, payload: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """Return the record's id and payload."""
        return str(point_id), dict(payload or {})

    def selector(self, *, payload: bool) -> bool | list[str]:
        """Return the ``with_payload`` of requests; every result contains its id."""
        return payload

    def key(self, field: str) -> str:
        """Return the field, which is the JSON path."""
        return field

    def exists(self, field: str) -> dict[str, Any]:
        """Return the condition that the field has a value."""
        return {"must_not": [{"is_empty": {"key": field}}]}

    def indexes(self) -> dict[str, str]:
        """Return the payload indexes, from JSON path to Qdrant's name of the index."""
        return {field: INDEXES[kind] for field, kind in self.filterable.items()}

    def convert(self, kind: FilterKind, value: object) -> list[Any]:
        """Return the value in the type of its kind, or nothing for a value of another kind."""
        return _CONVERT[kind](value)


Layout: TypeAlias = OwnLayout | AdoptedLayout


def to_uuid5(record_id: str) -> str:
    """Return the UUID of version 5 (RFC 9562) in our namespace, in a third of the time of ``uuid.uuid5``."""
    digits = hashlib.sha1(NAMESPACE.bytes + record_id.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


@lru_cache(maxsize=1024)
def _filter_key(field: str) -> str:
    return FILTER + re.sub(r"[^A-Za-z0-9_]", lambda match: f"-{ord(match[0]):x}-", field)


def _unwrap_single(values: list[Any]) -> Any:
    """Return a single value by itself, which filters treat like a list of one.

    Each list costs qdrant-edge 0.9 three microseconds more.
    """
    return values[0] if len(values) == 1 else values


def to_rfc3339(value: object) -> list[str]:
    """Return an ISO 8601 date as RFC 3339 in UTC with microseconds, for Qdrant's index; nothing for other values."""
    if not isinstance(value, str):
        return []
    try:
        moment = parse_date(value)
    except ValueError:
        return []
    return [moment.isoformat(timespec="microseconds").replace("+00:00", "Z")]


_CONVERT: Mapping[FilterKind, Callable[[object], list[Any]]] = {
    FilterKind.KEYWORD: lambda value: [value] if isinstance(value, str) else [],
    FilterKind.INT: lambda value: [] if (number := to_int64(value)) is None else [number],
    FilterKind.FLOAT: lambda value: [] if (number := to_float(value)) is None else [number],
    FilterKind.BOOL: lambda value: [value] if isinstance(value, bool) else [],
    FilterKind.DATE: to_rfc3339,
}

INDEXES: Mapping[FilterKind, str] = {
    FilterKind.KEYWORD: "keyword",
    FilterKind.INT: "integer",
    FilterKind.FLOAT: "float",
    FilterKind.BOOL: "bool",
    FilterKind.DATE: "datetime",
}
"""Qdrant's name of the payload index of each kind."""
