"""The order in which work is computed: fair between clients, and short texts before long ones that arrived just before.

Each client has a queue. The next piece comes from the client that has been served the fewest tokens while it was
waiting. In a queue, the order is by ``due``: the time of arrival, plus a time that grows with the number of tokens. So
a short request overtakes long ones that arrived up to that time earlier, and no request waits for ever.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

__all__ = ["Piece", "Waiting"]

Content = TypeVar("Content")

LOOKED_AT = 8
"""The number of pieces at the head of a queue among which a short one is looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece(Generic[Content]):
    """Work of a client, at most one batch: its number of tokens, and when it is due."""

    client: str
    tokens: int
    due: float
    content: Content


class Waiting(Generic[Content]):
    """Pieces that wait; not safe in threads."""

    def __init__(self) -> None:
        """Begin without pieces."""
        self._queues: dict[str, list[Piece[Content]]] = {}
        self._order: list[tuple[int, int, str]] = []
        self._served = 0
        self._numbers = count()
        self._count = self._tokens = 0

    def __len__(self) -> int:
        """Return the number of pieces."""
        return self._count

    @property
    def tokens(self) -> int:
        """The number of tokens of all pieces."""
        return self._tokens

    def add(self, piece: Piece[Content]) -> None:
        """Add a piece to the queue of its client."""
        queue = self._queues.get(piece.client)
        if queue is None:
            queue = self._queues[piece.client] = []
            heapq.heappush(self._order, (self._served, next(self._numbers), piece.client))
        insort(queue, piece, key=_due)
        self._count += 1
        self._tokens += piece.tokens

    def take(self, budget: int, longest: int | None = None) -> list[Piece[Content]]:
        """Remove and return the next pieces that have up to ``budget`` tokens together, and at least one piece.

        With ``longest`` only pieces of up to so many tokens are taken; the result may then be empty.
        """
        taken: list[Piece[Content]] = []
        aside: list[tuple[int, int, str]] = []
        room = budget
        while self._order and room > 0:
            entry = heapq.heappop(self._order)
            queue = self._queues[entry[2]]
            position = _first(queue, longest)
            if position is None or (taken and queue[position].tokens > room):
                aside.append(entry)
                if position is not None:
                    break
                continue
            piece = queue.pop(position)
            taken.append(piece)
            room -= piece.tokens
            self._leave(entry, piece)
        for entry in aside:
            heapq.heappush(self._order, entry)
        return taken

    def _leave(self, entry: tuple[int, int, str], piece: Piece[Content]) -> None:
        """Count a piece that was removed, and put its client back into the order."""
        served, _, client = entry
        self._served = max(self._served, served)
        self._count -= 1
        self._tokens -= piece.tokens
        if self._queues[client]:
            heapq.heappush(self._order, (served + piece.tokens, next(self._numbers), client))
        else:
            del self._queues[client]

    def drop(self, is_unwanted: Callable[[Content], bool], client: str) -> None:
        """Remove the pieces of a client that are no longer wanted."""
        queue = self._queues.get(client)
        if queue is None:
            return
        left = [piece for piece in queue if not is_unwanted(piece.content)]
        self._count -= len(queue) - len(left)
        self._tokens -= sum(piece.tokens for piece in queue) - sum(piece.tokens for piece in left)
        queue[:] = left
        if not left:
            del self._queues[client]
            self._order = [entry for entry in self._order if entry[2] != client]
            heapq.heapify(self._order)


def _due(piece: Piece[Content]) -> float:
    return piece.due


def _first(queue: Sequence[Piece[Content]], longest: int | None) -> int | None:
    """Return the position of the first piece of up to ``longest`` tokens, None if there is none near the head."""
    if longest is None:
        return 0
    return next((at for at, piece in enumerate(queue[:LOOKED_AT]) if piece.tokens <= longest), None)
