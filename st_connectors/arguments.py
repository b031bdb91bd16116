"""Check arguments; the functions are shared by several modules."""

from __future__ import annotations

__all__ = ["check_int"]


def check_int(value: object, least: int, name: str) -> int:
    """Return an integer of at least ``least``; raise TypeError or ValueError for other values of argument ``name``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value
