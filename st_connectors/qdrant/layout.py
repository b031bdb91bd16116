"""Map records to points, for collections of this package and for those created by someone else.

Collections of this package store the payload as one JSON string, because not every protocol of Qdrant preserves the
order of keys and the difference between 1 and 1.0 (gRPC has no integers in lists of mixed numbers, and servers do not
order payloads). They also store a copy of each filterable field in the type that its index expects. A separate key
states whether a field has a value, because ``is_empty`` tests a key regardless of the kind of its values.
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

from st_connectors._matching import to_float, to_int64, values_at
from st_connectors.filters import parse_date
from st_connectors.schema import FilterKind, Schema

__all__ = ["INDEXES", "AdoptedLayout", "Layout", "OwnLayout", "PointId", "to_rfc3339"]

PointId: TypeAlias = int | str

ID = "_st_id"
PAYLOAD = "_st_payload"
PRESENT = "_st_present"
FILTER = "_st_f_"
# The namespace of the UUIDs that represent ids. It must never change, because stored points have these UUIDs as ids.
NAMESPACE = uuid.UUID("6f0c1c0e-5b0a-5f43-9a53-0b4ad2f6f7d1")
_encode_json = json.JSONEncoder(separators=(",", ":")).encode
_decode_json = json.JSONDecoder().decode


@dataclass(frozen=True, slots=True)
class OwnLayout:
    """The points of a collection created by this package: ids are arbitrary strings, and payloads are unchanged."""

    schema: Schema

    @property
    def filterable(self) -> Mapping[str, FilterKind]:
        """The kinds of the filterable fields."""
        return self.schema.filterable

    def point_id(self, record_id: str) -> PointId | None:
        """Return the UUID that represents the record's id."""
        return to_uuid5(record_id)

    def stored_as(self, record_id: str) -> str:
        """Return the id unchanged, because every id is stored as it is written."""
        return record_id

    def to_payload(self, record_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload of the point for a record."""
        return {ID: record_id, PAYLOAD: _encode_json(payload)} | self.copies(payload)

    def copies(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the copies of filterable fields, and the names of the fields that have a value."""
        point_payload: dict[str, Any] = {}
        present = []
        for name, kind in self.schema.filterable.items():
            items = [item for item in values_at(payload, name) if item is not None]
            if items:
                present.append(name)
                point_payload[self.key(name)] = _unwrap_single(
                    [converted for item in items for converted in self.convert(kind, item)]
                )
        if present:
            point_payload[PRESENT] = _unwrap_single(present)
        return point_payload

    def from_payload(self, point_id: PointId, payload: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """Return the id and the payload of the record for a point."""
        point_payload = payload or {}
        # A point added without this package has no id key; it is returned under its point id.
        record_payload = _decode_json(point_payload[PAYLOAD]) if PAYLOAD in point_payload else {}
        return point_payload.get(ID, str(point_id)), record_payload

    def selector(self, *, payload: bool) -> bool | list[str]:
        """Return the option ``with_payload`` for requests: the keys of the id and, if requested, of the payload."""
        return [ID, PAYLOAD] if payload else [ID]

    def key(self, field: str) -> str:
        """Return the JSON path that a filter on the field tests."""
        return _filter_key(field)

    def exists(self, field: str) -> dict[str, Any]:
        """Return the condition that the field has a value."""
        return {"key": PRESENT, "match": {"value": field}}

    def indexes(self) -> dict[str, str]:
        """Return the payload indexes as a mapping from JSON path to the index type in Qdrant."""
        if not self.schema.filterable:
            return {}
        kinds = {**INDEXES, FilterKind.BOOL: "keyword"}
        return {PRESENT: "keyword"} | {self.key(name): kinds[kind] for name, kind in self.schema.filterable.items()}

    def convert(self, kind: FilterKind, value: object) -> list[Any]:
        """Return a list of the value as it is stored, or an empty list for a value of another kind.

        Booleans are stored as words, because qdrant-edge 0.9 sends True as 1.
        """
        converted = _CONVERT[kind](value)
        return [str(item).lower() for item in converted] if kind is FilterKind.BOOL else converted


@dataclass(frozen=True, slots=True)
class AdoptedLayout:
    """The points of a collection created by someone else: ids are integers or UUIDs, and payloads are unchanged.

    Field names in filters are JSON paths of Qdrant.
    """

    filterable: Mapping[str, FilterKind]

    def point_id(self, record_id: str) -> PointId | None:
        """Return the id as an integer or UUID; None for other ids, which Qdrant does not support."""
        if record_id.isdecimal() and record_id.isascii() and int(record_id) < 2**64:
            return int(record_id)
        try:
            return str(uuid.UUID(record_id))
        except ValueError:
            return None

    def stored_as(self, record_id: str) -> str | None:
        """Return the id as Qdrant returns it: a number without zeros in front, a UUID in lower case with hyphens.

        None for ids that Qdrant does not support.
        """
        point = self.point_id(record_id)
        return None if point is None else str(point)

    def to_payload(self, record_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload unchanged."""
        del record_id
        return dict(payload)

    def from_payload(self, point_id: PointId, payload: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """Return the id and the payload of the record for a point."""
        return str(point_id), dict(payload or {})

    def selector(self, *, payload: bool) -> bool | list[str]:
        """Return the option ``with_payload`` for requests; results contain ids in any case."""
        return payload

    def key(self, field: str) -> str:
        """Return the field name, which is the JSON path."""
        return field

    def exists(self, field: str) -> dict[str, Any]:
        """Return the condition that the field has a value."""
        return {"must_not": [{"is_empty": {"key": field}}]}

    def indexes(self) -> dict[str, str]:
        """Return the payload indexes as a mapping from JSON path to the index type in Qdrant."""
        return {field: INDEXES[kind] for field, kind in self.filterable.items()}

    def convert(self, kind: FilterKind, value: object) -> list[Any]:
        """Return a list of the value in the type of its kind, or an empty list for a value of another kind."""
        return _CONVERT[kind](value)


Layout: TypeAlias = OwnLayout | AdoptedLayout


def to_uuid5(record_id: str) -> str:
    """Return the UUID of version 5 (RFC 9562) of an id in the namespace of this package.

    Takes a third of the time of ``uuid.uuid5``.
    """
    digits = hashlib.sha1(NAMESPACE.bytes + record_id.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


@lru_cache(maxsize=1024)
def _filter_key(field: str) -> str:
    return FILTER + re.sub(r"[^A-Za-z0-9_]", lambda match: f"-{ord(match[0]):x}-", field)


def _unwrap_single(values: list[Any]) -> Any:
    """Return the value of a list of one value, and any other list unchanged.

    Filters treat a value like a list of one value, and qdrant-edge 0.9 needs three microseconds more for each list.
    """
    return values[0] if len(values) == 1 else values


def to_rfc3339(value: object) -> list[str]:
    """Return a list of an ISO 8601 date in the form of RFC 3339, in UTC with microseconds, as Qdrant's index expects.

    The list is empty for other values.
    """
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
"""The type of the payload index in Qdrant for each kind."""
