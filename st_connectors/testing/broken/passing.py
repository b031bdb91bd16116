"""What broken stores are made of: a store that passes everything on, and small ways to bend what passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from st_connectors.filters import And, Filter, Not, Or
from st_connectors.memory import matches
from st_connectors.schema import Schema
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest, Store
from st_connectors.testing.base import EVERYTHING, Make

__all__ = ["Broken", "Loose", "Passing", "around", "in_order", "with_schema"]


@dataclass(frozen=True, slots=True)
class Broken:
    """One bug that was seen somewhere: what goes wrong, which test of the suite must catch it, and how to open stores that have it."""

    bug: str
    caught_by: str
    breaks: Callable[[Make], Make]


class Passing:
    """Passes everything on; broken stores change one thing."""

    def __init__(self, store: Store) -> None:
        """Stand in front of a good store."""
        self.store = store

    @property
    def schema(self) -> Schema:
        """The good store's."""
        return self.store.schema

    @property
    def capabilities(self) -> Capabilities:
        """The good store's."""
        return self.store.capabilities

    def create(self) -> None:
        """Pass on."""
        self.store.create()

    def drop(self) -> None:
        """Pass on."""
        self.store.drop()

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Pass on."""
        return self.store.upsert(records)

    def delete(self, ids: Sequence[str]) -> None:
        """Pass on."""
        self.store.delete(ids)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Pass on."""
        return self.store.get(ids, parts=parts)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Pass on."""
        return self.store.search(requests)

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Pass on."""
        return self.store.scan(where=where, parts=parts, batch=batch)

    def count(self, where: Filter | None = None) -> int:
        """Pass on."""
        return self.store.count(where)

    def refresh(self) -> None:
        """Pass on."""
        self.store.refresh()

    def close(self) -> None:
        """Pass on."""
        self.store.close()

    def everything(self, request: SearchRequest) -> list[Hit]:
        """All hits of a request, uncut and with their payload, so that a broken store can choose among them wrongly."""
        return self.store.search([replace(request, limit=EVERYTHING, offset=0, parts=request.parts | Parts.PAYLOAD)])[0]


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
