"""Sets of positions in a source, stored as intervals, because batches are confirmed out of order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

__all__ = ["Positions"]


class Positions:
    """A set of integers from 0 up; the memory depends on the number of gaps only. For use in one thread."""

    def __init__(self, intervals: Iterable[Sequence[int]] = ()) -> None:
        """Add the positions of half-open intervals ``(start, end)``."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in intervals:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add the positions from ``start`` up to, but not including, ``end``; raise ValueError if there are none."""
        if not 0 <= start < end:
            raise ValueError(f"an interval must have 0 <= start < end, not {start} and {end}")
        # Intervals that overlap or touch the new one are merged with it.
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def __contains__(self, position: int) -> bool:
        at = bisect_right(self._starts, position) - 1
        return at >= 0 and position < self._ends[at]

    @property
    def prefix(self) -> int:
        """The first position that is not in the set."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def end(self) -> int:
        """The position after the last one in the set; 0 if the set is empty."""
        return self._ends[-1] if self._ends else 0

    @property
    def intervals(self) -> list[tuple[int, int]]:
        """The half-open intervals in order, with gaps between them."""
        return list(zip(self._starts, self._ends, strict=True))
