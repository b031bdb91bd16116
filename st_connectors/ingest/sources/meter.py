"""Measure how much of the sources has been read, for a percentage and the number of documents to expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Meter"]


class Meter:
    """The part of the sources that has been read, by their sizes in bytes; for use in one thread."""

    def __init__(self, total: int | None = None) -> None:
        """Store the size of all sources; None if it is unknown."""
        self._total = total
        self._done = 0.0
        self._position: Callable[[], float] | None = None

    @contextmanager
    def reading(self, position: Callable[[], float], size: int) -> Iterator[None]:
        """Count a source of ``size`` bytes while it is read; ``position`` returns how many of them have been read."""
        self._position = position
        try:
            yield
        finally:
            self._position = None
            self._done += size

    def share(self) -> float | None:
        """Return the part that has been read, between 0 and 1; None if the size is unknown."""
        if not self._total:
            return None
        reached = self._done + (0.0 if self._position is None else self._position())
        return min(1.0, reached / self._total)
