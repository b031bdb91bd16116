"""Compute a value once, on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

__all__ = ["Once"]

Value = TypeVar("Value")


class Once(Generic[Value]):
    """A value that one thread computes on first use while other threads wait.

    An error is raised in the thread that computed, and the next caller tries again. The function and everything it
    references are released once the value is computed.
    """

    def __init__(self, compute: Callable[[], Value]) -> None:
        """Store the function, which is called on first use."""
        self._lock = threading.Lock()
        self._compute: Callable[[], Value] | None = compute
        self._value: Value | None = None

    def __call__(self) -> Value:
        """Return the value; the first call computes it."""
        if self._compute is not None:
            with self._lock:
                if self._compute is not None:
                    self._value = self._compute()
                    self._compute = None
        return cast("Value", self._value)
