"""What broken stores are made of: a store that passes everything on, and small ways to bend what passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from st_connectors.filters import And, Filter, Not, Or
from st_connectors.layers.passing import Passing
from st_connectors.memory import matches
from st_connectors.schema import Schema
from st_connectors.store import Hit, Parts, Record, SearchRequest, Store
from st_connectors.testing.base import Make

__all__ = ["Broken", "Loose", "Passing", "around", "in_order", "with_schema"]


@dataclass(frozen=True, slots=True)
class Broken:
    """One bug that was seen somewhere: what goes wrong, which test of the suite must catch it, and how to open stores that have it."""

    bug: str
    caught_by: str
    breaks: Callable[[Make], Make]


class Loose(Passing):
    """Filters by itself, by the truth table of memory over payloads and filters that were bent first."""

    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The payload as it is filtered."""
        return payload

    def leaf(self, where: Filter) -> Filter:
        """A leaf as it is understood."""
        return where

    def bent(self, where: Filter) -> Filter:
        """A filter as it is understood."""
        match where:
            case And(parts):
                return And(tuple(self.bent(part) for part in parts))
            case Or(parts):
                return Or(tuple(self.bent(part) for part in parts))
            case Not(part):
                return Not(self.bent(part))
            case _:
                return self.leaf(where)

    def lets_through(self, where: Filter | None, payload: Mapping[str, Any]) -> bool:
        """Whether a record is let through."""
        return where is None or matches(self.bent(where), self.payload(payload), self.schema.filterable)

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Filter what the good store gives."""
        for record in self.store.scan(parts=parts | Parts.PAYLOAD, batch=batch):
            if self.lets_through(where, record.payload):
                yield record

    def count(self, where: Filter | None = None) -> int:
        """Count what the good store gives."""
        return sum(1 for _ in self.scan(where=where))


def around(broken: Callable[[Store], Store]) -> Callable[[Make], Make]:
    """Opens the good store and puts the broken one around it."""

    def breaks(make: Make) -> Make:
        return lambda what: broken(make(what))

    return breaks


def with_schema(change: Callable[[Schema], Schema]) -> Callable[[Make], Make]:
    """Opens the good store with another schema, while pretending to have the one asked for."""

    def breaks(make: Make) -> Make:
        def opened(what: Schema | str, /) -> Store:
            if isinstance(what, str):
                return make(what)
            store = _Pretending(make(change(what)))
            store.pretended = what
            return store

        return opened

    return breaks


class _Pretending(Passing):
    pretended: Schema

    @property
    def schema(self) -> Schema:
        return self.pretended


def in_order(hits: Sequence[Hit], request: SearchRequest) -> list[Hit]:
    """Hits sorted and cut as a request asks."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[request.offset : request.offset + request.limit]
