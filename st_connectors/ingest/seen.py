"""Count documents that replace an earlier one of the same ingest, in 8 bytes of memory per id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SeenIds"]


class SeenIds:
    """The ids that one ingest has stored, as 64-bit hashes in sorted arrays; for use in one thread.

    The length of each array is at least twice that of the next, so that an id is looked up in a number of arrays that
    grows with the logarithm of the number of ids. Two different ids have the same hash once in 10**19 pairs: among ten
    million ids, the count is one too high with a probability of about 3 in a million.
    """

    def __init__(self) -> None:
        """Start without ids."""
        self._arrays: list[NDArray[np.uint64]] = []

    def add(self, ids: Sequence[str]) -> int:
        """Add ids, and return how many of them were there before, earlier in ``ids`` included."""
        distinct = np.unique(_hashes(ids))
        new = distinct[~self._contains(distinct)]
        self._insert(new)
        return len(ids) - len(new)

    def contains(self, ids: Sequence[str]) -> list[bool]:
        """Return for each id whether it was added."""
        return [bool(each) for each in self._contains(_hashes(ids))]

    def _contains(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return for each hash whether an array contains it."""
        is_seen = np.zeros(len(hashes), bool)
        for array in self._arrays:
            at = np.minimum(np.searchsorted(array, hashes), len(array) - 1)
            is_seen |= array[at] == hashes
        return is_seen

    def _insert(self, new: NDArray[np.uint64]) -> None:
        """Append a sorted array without duplicates, merged with the preceding arrays that are not much longer."""
        if not len(new):
            return
        while self._arrays and len(self._arrays[-1]) < 2 * len(new):
            new = np.sort(np.concatenate((self._arrays.pop(), new)), kind="stable")
        self._arrays.append(new)


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    return np.fromiter((xxhash.xxh3_64_intdigest(each.encode()) for each in ids), np.uint64, len(ids))
