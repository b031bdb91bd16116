"""Keep the order of documents with equal ids while several batches are written at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Order", "Turn"]


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """The place of a batch in the order; ``number`` counts batches from 0."""

    number: int
    ids: frozenset[str]
    after: frozenset[int]
    """The numbers of the earlier batches with an id of this batch that were not written when it was added."""


class Order:
    """The batches that are not written yet. Safe for use from several threads.

    A batch is written only after all earlier batches that share an id with it. Batches without a common id do not wait
    for each other. No deadlock is possible, because a batch waits for earlier batches only.
    """

    def __init__(self) -> None:
        """Start without batches."""
        self._changed = threading.Condition()
        self._next = 0
        self._last: dict[str, int] = {}
        self._open: set[int] = set()
        self._is_stopped = False

    def add(self, ids: Iterable[str]) -> Turn:
        """Append a batch with the ids of its documents, and return its turn; called in the order of the source."""
        distinct = frozenset(ids)
        with self._changed:
            number = self._next
            self._next += 1
            # The last batch with an id waits for all earlier ones with it, so that waiting for the last one suffices.
            after = frozenset(self._last[each] for each in distinct if each in self._last)
            self._last.update(dict.fromkeys(distinct, number))
            self._open.add(number)
        return Turn(number, distinct, after)

    def wait(self, turn: Turn) -> bool:
        """Wait until the batch may be written; return False if the order was stopped before."""
        with self._changed:
            while not self._is_stopped and not self._open.isdisjoint(turn.after):
                self._changed.wait()
            return not self._is_stopped

    def finish(self, turn: Turn) -> None:
        """Remove a batch that was written."""
        with self._changed:
            self._open.discard(turn.number)
            for each in turn.ids:
                if self._last.get(each) == turn.number:
                    del self._last[each]
            self._changed.notify_all()

    def stop(self) -> None:
        """End all waits; batches that have not begun are not to be written."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
