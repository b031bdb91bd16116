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
    Single records that are refused as too large are sent again in a smaller batch, because all records of a batch may
    share the limit.
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
        parts: list[Sequence[int]] = [range(len(records))]
        rejected: list[Rejected] = []
        while parts:
            part = parts.pop()
            try:
                answer = self.store.upsert([records[at] for at in part])
                refused = [Rejected(part[item.position], item.id, item.error) for item in answer]
                again = [item.position for item in refused if _is_too_large(item.error)]
            except StoreError as error:
                if not self._can_help(error):
                    if len(part) == len(records):
                        raise
                    left = [at for each in (part, *parts) for at in each]
                    rejected += [Rejected(at, records[at].id, error) for at in left]
                    break
                refused = [Rejected(at, records[at].id, error) for at in part]
                again = list(part)
            smaller = _smaller_parts(again, len(part))
            repeated = {at for each in smaller for at in each}
            rejected += [item for item in refused if item.position not in repeated]
            parts += reversed(smaller)
        return sorted(rejected, key=lambda item: item.position)

    def _can_help(self, error: StoreError) -> bool:
        """Return whether the store may accept a part of the batch after this error."""
        return isinstance(error, Refused) and (_is_too_large(error) or not self._only_too_large)


def _is_too_large(error: StoreError) -> bool:
    return isinstance(error, Refused) and error.status == TOO_LARGE


def _smaller_parts(positions: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return batches for refused positions, all smaller than their batch of ``size``; none for a single record."""
    if size == 1 or not positions:
        return []
    if len(positions) < size:
        return [positions]
    return [positions[: size // 2], positions[size // 2 :]]
