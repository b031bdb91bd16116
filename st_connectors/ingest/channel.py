"""A bounded queue between two stages of a pipeline, which can be closed by its writer and stopped by anyone."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Channel"]

T = TypeVar("T")


class Channel(Generic[T]):
    """A queue of at most ``size`` items. Safe for use from several threads."""

    def __init__(self, size: int) -> None:
        """Start empty."""
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, item: T) -> bool:
        """Wait for room and append an item; return False, without appending it, if the channel is closed."""
        with self._changed:
            while len(self._items) >= self._size and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> T | None:
        """Wait for an item and return it; return None if the channel is closed and empty."""
        with self._changed:
            while not self._items and not self._is_closed:
                self._changed.wait()
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Accept no further items; those that are in the channel can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Accept no further items, and drop those that are in the channel."""
        with self._changed:
            self._items.clear()
            self._is_closed = True
            self._changed.notify_all()
