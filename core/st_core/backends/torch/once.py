"""A value that is computed when it is first used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

__all__ = ["Once"]

Value = TypeVar("Value")


class Once(Generic[Value]):
    """A value that one thread computes at first use while others wait; safe in threads.

    An error is raised to the caller that computed, and the next caller tries again. The function, with all that it
    holds, is dropped once the value is there.
    """

    def __init__(self, compute: Callable[[], Value]) -> None:
        """Store the function; it is not called before the value is used."""
        self._lock = threading.Lock()
        self._compute: Callable[[], Value] | None = compute
        self._value: Value | None = None

    def __call__(self) -> Value:
        """Return the value, computed by the first call."""
        if self._compute is not None:
            with self._lock:
                if self._compute is not None:
                    self._value = self._compute()
                    self._compute = None
        return cast("Value", self._value)
