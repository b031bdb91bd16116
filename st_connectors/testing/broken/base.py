"""Describe deliberately broken stores, which the suite must reject, and make them from correct stores.

Each broken store changes a single behaviour of a correct one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from st_connectors.filters import And, Filter, Not, Or
from st_connectors.layers.passing import Passing
from st_connectors.memory import matches
from st_connectors.schema import Schema
from st_connectors.store import Hit, Parts, Record, SearchRequest, Store
from st_connectors.testing.base import Make

__all__ = ["Broken", "Failed", "FilteringByItself", "Passing", "sort_and_cut", "with_schema", "wrapping"]

Failed = pytest.fail.Exception
"""Raised by ``pytest.raises`` where nothing was raised."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A bug that was seen somewhere, how to open stores that have it, and how the suite catches it.

    The test ``caught_by`` must fail with exactly the exception type ``raises`` and a message that matches the regular
    expression ``message``: a store that merely crashes is not caught.
    """

    bug: str
    caught_by: str
    breaks: Callable[[Make], Make]
    message: str
    raises: type[BaseException] = AssertionError


class FilteringByItself(Passing):
    """A store that evaluates filters itself, with the rules of the memory store on distorted payloads and filters."""

    def distort_payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the payload that filters are evaluated on."""
        return payload

    def distort_leaf(self, where: Filter) -> Filter:
        """Return the condition that is evaluated instead of a single condition."""
        return where

    def distort(self, where: Filter) -> Filter:
        """Return the filter that is evaluated instead of a filter."""
        match where:
            case And(parts):
                return And(tuple(self.distort(part) for part in parts))
            case Or(parts):
                return Or(tuple(self.distort(part) for part in parts))
            case Not(part):
                return Not(self.distort(part))
            case _:
                return self.distort_leaf(where)

    def is_match(self, where: Filter | None, payload: Mapping[str, Any]) -> bool:
        """Return whether a payload matches a filter."""
        return where is None or matches(self.distort(where), self.distort_payload(payload), self.schema.filterable)

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Filter the records of the wrapped store."""
        for record in self.store.scan(parts=parts | Parts.PAYLOAD, batch=batch):
            if self.is_match(where, record.payload):
                yield record

    def count(self, where: Filter | None = None) -> int:
        """Count the filtered records of the wrapped store."""
        return sum(1 for _ in self.scan(where=where))


def wrapping(broken: Callable[[Store], Store]) -> Callable[[Make], Make]:
    """Open a correct store and wrap the broken one around it."""

    def breaks(make: Make) -> Make:
        return lambda what: broken(make(what))

    return breaks


def with_schema(change: Callable[[Schema], Schema]) -> Callable[[Make], Make]:
    """Open a correct store with another schema that reports the requested one."""

    def breaks(make: Make) -> Make:
        def open_changed(what: Schema | str, /) -> Store:
            if isinstance(what, str):
                return make(what)
            store = _ReportingSchema(make(change(what)))
            store.reported = what
            return store

        return open_changed

    return breaks


class _ReportingSchema(Passing):
    reported: Schema

    @property
    def schema(self) -> Schema:
        return self.reported


def sort_and_cut(hits: Sequence[Hit], request: SearchRequest) -> list[Hit]:
    """Return hits in order, limited to the page of a request."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[request.offset : request.offset + request.limit]
