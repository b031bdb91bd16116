"""Functions for other processes, in a module that imports nothing."""

from __future__ import annotations


def raised(error: BaseException) -> None:
    """Raise an error."""
    raise error


def returned(value: object) -> object:
    """Return a value."""
    return value
