"""Check arguments; the functions are shared by several modules."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

__all__ = ["check_int", "set_ints"]


def check_int(value: object, least: int, name: str) -> int:
    """Return an integer of at least ``least``, such as 2 or ``np.int64(2)``, as an int of Python.

    Raises TypeError or ValueError for other values of argument ``name``.
    """
    number = _index(value)
    if number is None:
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def set_ints(options: object, least: Mapping[str, int]) -> None:
    """Check attributes of a frozen dataclass with :func:`check_int`, and replace them by ints of Python.

    ``least`` maps their names to their minimums.
    """
    for name, minimum in least.items():
        object.__setattr__(options, name, check_int(getattr(options, name), minimum, name))


def _index(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
