"""Finds the records for which a store refuses a whole batch, by halving it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from st_connectors.errors import Refused, StoreError
from st_connectors.filters import Filter
from st_connectors.schema import Schema
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["isolating"]


def isolating(store: Store) -> Store:
    """The same store, which rejects only the records at fault where it would refuse their whole batch.

    One bad record among n costs about ``2 * log2(n)`` more calls. Stores that answer record by record are returned as they are.
    """
    return store if store.capabilities.partial_failure else _Isolating(store)


class _Isolating:
    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def schema(self) -> Schema:
        return self._store.schema

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def create(self) -> None:
        self._store.create()

    def drop(self) -> None:
        self._store.drop()

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Halve what is ``Refused`` down to single records; any other error before anything went in is raised.

        Once halving has begun, another error ends it: the records not yet written are returned as rejected with that error.
        """
        spans = [(0, len(records))]
        rejected: list[Rejected] = []
        while spans:
            start, end = spans.pop()
            try:
                answer = self._store.upsert(records[start:end])
                rejected += [Rejected(start + item.position, item.id, item.error) for item in answer]
            except Refused as error:
                if end - start <= 1:
                    rejected += _all(records, start, end, error)
                else:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
            except StoreError as error:
                if (start, end) == (0, len(records)):
                    raise
                for first, last in [(start, end), *reversed(spans)]:
                    rejected += _all(records, first, last, error)
                break
        return rejected

    def delete(self, ids: Sequence[str]) -> None:
        self._store.delete(ids)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return self._store.get(ids, parts=parts)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        return self._store.search(requests)

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return self._store.scan(where=where, parts=parts, batch=batch)

    def count(self, where: Filter | None = None) -> int:
        return self._store.count(where)

    def refresh(self) -> None:
        self._store.refresh()

    def close(self) -> None:
        self._store.close()


def _all(records: Sequence[Record], start: int, end: int, error: StoreError) -> list[Rejected]:
    """Every record of a span, rejected with one error."""
    return [Rejected(at, records[at].id, error) for at in range(start, end)]
