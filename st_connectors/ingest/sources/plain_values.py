"""Convert values that libraries return for numbers, dates and the like to JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["plain_tree", "plain_value"]


def plain_value(value: Any) -> Any:
    """Convert a value that is not nested; values that have no form in JSON stay, and the store refuses them.

    Dates and times become ISO 8601, durations seconds, decimals numbers (whole ones without fraction digits), UUIDs
    strings, and bytes the text that they are in UTF-8; raises UnicodeDecodeError for other bytes.
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
        case bytes():
            return value.decode()
        case _:
            return value


def plain_tree(value: Any) -> Any:
    """Convert all values of nested lists and mappings; keys become strings."""
    match value:
        case Mapping():
            return {str(plain_value(key)): plain_tree(item) for key, item in value.items()}
        case list():
            return [plain_tree(item) for item in value]
        case _:
            return plain_value(value)
