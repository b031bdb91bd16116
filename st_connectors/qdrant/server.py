"""Interpret the version that a server reports, without requests."""

from __future__ import annotations

from st_connectors.errors import Unsupported

__all__ = ["check_version"]

OLDEST = (1, 16)
"""The first version with collection metadata and with the parameter k of reciprocal rank fusion."""


def check_version(version: str, *, store: str, operation: str) -> None:
    """Raise ``Unsupported`` for a server that is too old."""
    parts = version.partition("-")[0].split(".")
    if [int(part) for part in parts[:2] if part.isdecimal()] < list(OLDEST):
        raise Unsupported(
            f"the server is Qdrant {version}, and 1.16 is the oldest that stores a collection's metadata",
            store=store,
            operation=operation,
        )
