"""The base of all layers: a store that hands every call on to the store it wraps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from st_connectors.filters import Filter
from st_connectors.schema import Schema
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["Passing"]


class Passing:
    """A store that hands every call on to ``store``; a layer overrides the operations it changes."""

    def __init__(self, store: Store) -> None:
        """Wrap a store."""
        self.store = store

    @property
    def schema(self) -> Schema:
        """The schema of the wrapped store."""
        return self.store.schema

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the wrapped store."""
        return self.store.capabilities

    def create(self) -> None:
        """Hand ``create`` on."""
        self.store.create()

    def drop(self) -> None:
        """Hand ``drop`` on."""
        self.store.drop()

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Hand ``upsert`` on."""
        return self.store.upsert(records)

    def delete(self, ids: Sequence[str]) -> None:
        """Hand ``delete`` on."""
        self.store.delete(ids)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Hand ``get`` on."""
        return self.store.get(ids, parts=parts)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Hand ``search`` on."""
        return self.store.search(requests)

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Hand ``scan`` on."""
        return self.store.scan(where=where, parts=parts, batch=batch)

    def count(self, where: Filter | None = None) -> int:
        """Hand ``count`` on."""
        return self.store.count(where)

    def refresh(self) -> None:
        """Hand ``refresh`` on."""
        self.store.refresh()

    def close(self) -> None:
        """Hand ``close`` on."""
        self.store.close()
