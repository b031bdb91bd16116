"""Convert values that libraries return for numbers, dates and the like to JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["READ_ERRORS", "Unreadable", "plain_tree", "plain_value", "read_value", "unreadable"]

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

    Dates and times become ISO 8601, durations seconds, decimals numbers (whole ones without fraction digits), UUIDs
    strings, and bytes the text that they are in UTF-8. Raises UnicodeDecodeError, a ValueError, for other bytes, and
    ValueError for Unreadable.
    """
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
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


def plain_tree(value: Any) -> Any:
    """Convert all values of nested lists and mappings; keys become strings."""
    match value:
        case Mapping():
            return {str(plain_value(key)): plain_tree(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_tree(item) for item in value]
        case _:
            return plain_value(value)
