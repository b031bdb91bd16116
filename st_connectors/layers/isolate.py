"""Find the records because of which a store refuses a batch, by halving the batch."""

from __future__ import annotations

from collections.abc import Sequence

from st_connectors.errors import Refused, StoreError
from st_connectors.layers.passing import Passing
from st_connectors.store import Record, Rejected, Store

__all__ = ["isolating"]


def isolating(store: Store) -> Store:
    """Return a store that rejects only the invalid records if ``store`` refuses a batch.

    One invalid record among n causes about ``2 * log2(n)`` further calls. A store that reports errors for each record
    is returned unchanged.
    """
    return store if store.capabilities.partial_failure else _Isolating(store)


class _Isolating(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Halve refused batches down to single records; raise an error other than ``Refused`` for the first call.

        An error other than ``Refused`` for a part of the batch ends the halving: the records that are not yet written
        are rejected with that error.
        """
        spans = [(0, len(records))]
        rejected: list[Rejected] = []
        while spans:
            start, end = spans.pop()
            try:
                answer = self.store.upsert(records[start:end])
                rejected += [Rejected(start + item.position, item.id, item.error) for item in answer]
            except Refused as error:
                if end - start <= 1:
                    rejected += _reject(records, start, end, error)
                else:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
            except StoreError as error:
                if (start, end) == (0, len(records)):
                    raise
                for first, last in [(start, end), *reversed(spans)]:
                    rejected += _reject(records, first, last, error)
                break
        return rejected


def _reject(records: Sequence[Record], start: int, end: int, error: StoreError) -> list[Rejected]:
    """Return rejections with one error for the records from position ``start`` up to, but not including, ``end``."""
    return [Rejected(at, records[at].id, error) for at in range(start, end)]
