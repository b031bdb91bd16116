"""Convert values that libraries return for numbers, dates and the like to JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

__all__ = ["READ_ERRORS", "Unreadable", "plain_tree", "plain_value", "read_value", "unreadable"]

_JSON = frozenset({str, int, float, bool, type(None)})
_FIRST, _LAST = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")

READ_ERRORS = (ValueError, TypeError, KeyError, OverflowError, NotImplementedError)
"""What is raised for values that Python has no type for; the errors of pyarrow are subclasses of these."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a value that cannot be read."""

    reason: str


def unreadable(name: str, error: Exception) -> Unreadable:
    """Return what stands for the value of a column."""
    return Unreadable(f"the value of {name!r} cannot be read: {' '.join(str(error).split())}")


def read_value(value: Any, name: str) -> Any:
    """Convert a value of a column, nested or not; return Unreadable if it cannot be read."""
    try:
        return plain_tree(value)
    except READ_ERRORS as error:
        return unreadable(name, error)


def plain_value(value: Any) -> Any:
    """Convert a value that is not nested; values that have no form in JSON stay, and the store refuses them.

    Dates and times become ISO 8601 with microseconds at most, durations seconds, decimals numbers (whole ones without
    fraction digits), UUIDs strings, and bytes the text that they are in UTF-8. NaT, which stands for no time in pandas,
    is None. Raises UnicodeDecodeError, a ValueError, for other bytes, and ValueError for Unreadable.
    """
    match value:
        case datetime() | date() | time() | timedelta():
            return _plain_time(value)
        case Decimal():
            exponent = value.as_tuple().exponent
            return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)
        case UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode()
        case Unreadable():
            raise ValueError(value.reason)
        case _:
            return value


def _plain_time(value: datetime | date | time | timedelta) -> str | float | None:
    if value != value:  # noqa: PLR0124  # NaT of pandas, which is a datetime and a timedelta
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    in_microseconds = getattr(value, "to_pydatetime", None)  # pandas has nanoseconds
    return (value if in_microseconds is None else in_microseconds(warn=False)).isoformat()


def plain_tree(value: Any) -> Any:
    """Convert all values of nested lists, arrays and mappings; keys become strings."""
    match value:
        case _ if type(value) in _JSON:
            return value
        case Mapping():
            return {str(plain_value(key)): plain_tree(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_tree(item) for item in value]
        case _ if hasattr(value, "dtype") and hasattr(value, "tolist"):  # of numpy, torch and others
            return plain_tree(_unpacked(value))
        case _:
            return plain_value(value)


def _unpacked(value: Any) -> Any:
    """Return the numbers, strings or times of an array or of one of its elements; raise ValueError for other years."""
    kind = getattr(value.dtype, "kind", "")
    if kind not in {"M", "m"}:
        return value.tolist()
    times = np.asarray(value).astype(f"{'datetime64' if kind == 'M' else 'timedelta64'}[us]")
    if kind == "M" and np.any((times < _FIRST) | (times > _LAST)):
        raise ValueError("a time is before the year 1 or after the year 9999")
    return times.tolist()
