"""What a point's payload looks like: ours, with everything hidden and exact, and other people's, plain.

Ours keeps the payload as one JSON string, because neither the order of keys nor 1 apart from 1.0 survives every way into Qdrant (gRPC
has no integers in lists of mixed numbers, a server's payload is unordered), and a copy of each filterable field in the one type its
index takes. Presence has a key of its own, since ``is_empty`` asks about a key and not about a kind.
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

from st_connectors.filters import parse_date
from st_connectors.schema import FilterKind, Schema

__all__ = ["INDEXES", "Hidden", "Layout", "Plain", "PointId", "instant"]

PointId: TypeAlias = int | str

ID = "_st_id"
PAYLOAD = "_st_payload"
PRESENT = "_st_present"
FILTER = "_st_f_"
# The namespace of the UUIDs that stand for ids: fixed for ever, since stored points are found by them.
NAMESPACE = uuid.UUID("6f0c1c0e-5b0a-5f43-9a53-0b4ad2f6f7d1")
INT64 = range(-(2**63), 2**63)
_JSON = json.JSONEncoder(separators=(",", ":"))
_READ = json.JSONDecoder().decode


@dataclass(frozen=True, slots=True)
class Hidden:
    """Our own collections: any string as id, the payload exactly as given."""

    schema: Schema

    @property
    def filterable(self) -> Mapping[str, FilterKind]:
        """What can be filtered on."""
        return self.schema.filterable

    def takes(self, record_id: str) -> bool:
        """Whether a point can have the id: any."""
        del record_id
        return True

    def point_id(self, record_id: str) -> PointId | None:
        """The UUID that stands for the record."""
        return uuid5(record_id)

    def record_id(self, record_id: str) -> str:
        """The id as answers spell it."""
        return record_id

    def to_payload(self, record_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The point's payload."""
        made: dict[str, Any] = {ID: record_id, PAYLOAD: _JSON.encode(payload)}
        present = []
        for name, kind in self.schema.filterable.items():
            value = payload.get(name)
            items = [item for item in (value if isinstance(value, list | tuple) else [value]) if item is not None]
            if items:
                present.append(name)
                made[self.key(name)] = _listed([kept for item in items for kept in self.typed(kind, item)])
        if present:
            made[PRESENT] = _listed(present)
        return made

    def from_payload(self, point_id: PointId, payload: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """The record's id and payload."""
        held = payload or {}
        # A point that somebody added behind our back has no id of ours; it is shown rather than stumbled over.
        return held.get(ID, str(point_id)), _READ(held[PAYLOAD]) if PAYLOAD in held else {}

    def selector(self, *, payload: bool) -> bool | list[str]:
        """``with_payload`` for answers that need the ids, and the payload or not."""
        return [ID, PAYLOAD] if payload else [ID]

    def key(self, field: str) -> str:
        """The JSON path that a filter on the field asks about."""
        return _filter_key(field)

    def exists(self, field: str) -> dict[str, Any]:
        """The condition that the field holds something."""
        return {"key": PRESENT, "match": {"value": field}}

    def indexes(self) -> dict[str, str]:
        """Payload indexes: JSON path to Qdrant's name of the index."""
        if not self.schema.filterable:
            return {}
        kinds = {**INDEXES, FilterKind.BOOL: "keyword"}
        return {PRESENT: "keyword"} | {self.key(name): kinds[kind] for name, kind in self.schema.filterable.items()}

    def typed(self, kind: FilterKind, value: object) -> list[Any]:
        """The value as its key holds it, or nothing; booleans as words, since qdrant-edge 0.9 asks for 1 where it is told True."""
        made = _TYPED[kind](value)
        return [str(item).lower() for item in made] if kind is FilterKind.BOOL else made


@dataclass(frozen=True, slots=True)
class Plain:
    """Other people's collections: integer or UUID ids as strings, the payload as it is; field names in filters are Qdrant's JSON paths."""

    filterable: Mapping[str, FilterKind]

    def takes(self, record_id: str) -> bool:
        """Whether a point can have the id: an integer or a UUID."""
        return self.point_id(record_id) is not None

    def point_id(self, record_id: str) -> PointId | None:
        """The integer or UUID that the id spells; None for any other, since Qdrant has no other ids."""
        if record_id.isdecimal() and record_id.isascii() and int(record_id) < 2**64:
            return int(record_id)
        try:
            return str(uuid.UUID(record_id))
        except ValueError:
            return None

    def record_id(self, record_id: str) -> str:
        """The id as answers spell it: a UUID in lower case with hyphens."""
        return str(self.point_id(record_id))

    def to_payload(self, record_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload as it is."""
        del record_id
        return dict(payload)

    def from_payload(self, point_id: PointId, payload: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """The record's id and payload."""
        return str(point_id), dict(payload or {})

    def selector(self, *, payload: bool) -> bool | list[str]:
        """``with_payload``; the ids come by themselves."""
        return payload

    def key(self, field: str) -> str:
        """The field is the JSON path."""
        return field

    def exists(self, field: str) -> dict[str, Any]:
        """The condition that the field holds something."""
        return {"must_not": [{"is_empty": {"key": field}}]}

    def indexes(self) -> dict[str, str]:
        """Payload indexes: JSON path to Qdrant's name of the index."""
        return {field: INDEXES[kind] for field, kind in self.filterable.items()}

    def typed(self, kind: FilterKind, value: object) -> list[Any]:
        """The value in the type of its kind, or nothing, so that nothing can equal it."""
        return _TYPED[kind](value)


Layout: TypeAlias = Hidden | Plain


def uuid5(record_id: str) -> str:
    """The UUID of version 5 (RFC 9562) in our namespace, as ``uuid.uuid5`` writes it, in a third of the time."""
    digits = hashlib.sha1(NAMESPACE.bytes + record_id.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


@lru_cache(maxsize=1024)
def _filter_key(field: str) -> str:
    return FILTER + re.sub(r"[^A-Za-z0-9_]", lambda found: f"-{ord(found[0]):x}-", field)


def _listed(values: list[Any]) -> Any:
    """A single value by itself, which every filter takes for a list of one; each list costs qdrant-edge 0.9 three microseconds more."""
    return values[0] if len(values) == 1 else values


def instant(value: object) -> list[str]:
    """An ISO 8601 string as the one RFC 3339 form in UTC that Qdrant's datetime index takes, to the microsecond; nothing for anything else."""
    if not isinstance(value, str):
        return []
    try:
        moment = parse_date(value)
    except ValueError:
        return []
    return [moment.isoformat(timespec="microseconds").replace("+00:00", "Z")]


def _whole(value: object) -> list[int]:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return [value] if isinstance(value, int) and not isinstance(value, bool) and value in INT64 else []


def _real(value: object) -> list[float]:
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


_TYPED: Mapping[FilterKind, Callable[[object], list[Any]]] = {
    FilterKind.KEYWORD: lambda value: [value] if isinstance(value, str) else [],
    FilterKind.INT: _whole,
    FilterKind.FLOAT: _real,
    FilterKind.BOOL: lambda value: [value] if isinstance(value, bool) else [],
    FilterKind.DATE: instant,
}

INDEXES: Mapping[FilterKind, str] = {
    FilterKind.KEYWORD: "keyword",
    FilterKind.INT: "integer",
    FilterKind.FLOAT: "float",
    FilterKind.BOOL: "bool",
    FilterKind.DATE: "datetime",
}
"""Qdrant's name of the payload index for each kind."""
