"""Find the records because of which a store refuses a batch, by halving the batch."""

from __future__ import annotations

from collections.abc import Sequence

from st_connectors.errors import Refused, StoreError
from st_connectors.layers.passing import Passing
from st_connectors.store import Record, Rejected, Store

__all__ = ["isolating"]

TOO_LARGE = 413
"""The status of a request that is larger than the server, or a proxy before it, accepts."""


def isolating(store: Store) -> Store:
    """Return a store that rejects only the records at fault if ``store`` refuses a batch.

    One record at fault among n causes about ``2 * log2(n)`` further calls. The batches of a store that reports errors
    for each record are halved only if they are too large, because any other refusal concerns the complete request.
    """
    return _Isolating(store, only_too_large=store.capabilities.partial_failure)


class _Isolating(Passing):
    def __init__(self, store: Store, *, only_too_large: bool) -> None:
        super().__init__(store)
        self._only_too_large = only_too_large

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Halve refused batches down to single records; raise an error that halving cannot help for the first call.

        Such an error for a part of the batch ends the halving: the records that are not yet written are rejected with
        that error.
        """
        spans = [(0, len(records))]
        rejected: list[Rejected] = []
        while spans:
            start, end = spans.pop()
            try:
                answer = self.store.upsert(records[start:end])
                rejected += [Rejected(start + item.position, item.id, item.error) for item in answer]
            except StoreError as error:
                if not self._can_help(error):
                    if (start, end) == (0, len(records)):
                        raise
                    for first, last in [(start, end), *reversed(spans)]:
                        rejected += _reject(records, first, last, error)
                    break
                if end - start <= 1:
                    rejected += _reject(records, start, end, error)
                else:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
        return rejected

    def _can_help(self, error: StoreError) -> bool:
        """Return whether the store may accept a part of the batch after this error."""
        return isinstance(error, Refused) and (error.status == TOO_LARGE or not self._only_too_large)


def _reject(records: Sequence[Record], start: int, end: int, error: StoreError) -> list[Rejected]:
    """Return rejections with one error for the records from position ``start`` up to, but not including, ``end``."""
    return [Rejected(at, records[at].id, error) for at in range(start, end)]
