"""The base class of layers: a store that forwards every call to the store that it wraps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from st_connectors.filters import Filter
from st_connectors.plugin import SchemaStore
from st_connectors.schema import Schema
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["Passing"]


class Passing:
    """A store that forwards every call to ``store``; a layer overrides the operations that it changes."""

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
        """Forward ``create`` to the wrapped store."""
        self.store.create()

    def drop(self) -> None:
        """Forward ``drop`` to the wrapped store."""
        self.store.drop()

    def alter(self, schema: Schema) -> None:
        """Forward ``alter`` to the wrapped store."""
        self.store.alter(schema)

    def stored_schema(self, collection: str) -> Schema | None:
        """Forward ``stored_schema`` to the wrapped store, which must have it."""
        return cast("SchemaStore", self.store).stored_schema(collection)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Forward ``upsert`` to the wrapped store."""
        return self.store.upsert(records)

    def delete(self, ids: Sequence[str]) -> None:
        """Forward ``delete`` to the wrapped store."""
        self.store.delete(ids)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Forward ``get`` to the wrapped store."""
        return self.store.get(ids, parts=parts)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Forward ``search`` to the wrapped store."""
        return self.store.search(requests)

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Forward ``scan`` to the wrapped store."""
        return self.store.scan(where=where, parts=parts, batch=batch)

    def count(self, where: Filter | None = None) -> int:
        """Forward ``count`` to the wrapped store."""
        return self.store.count(where)

    def refresh(self) -> None:
        """Forward ``refresh`` to the wrapped store."""
        self.store.refresh()

    def close(self) -> None:
        """Forward ``close`` to the wrapped store."""
        self.store.close()
