"""Interpret the version that a server reports, without requests."""

from __future__ import annotations

from st_connectors.errors import Unsupported

__all__ = ["is_embedded"]

OLDEST = (2, 5)
"""The first version with expression templates, the BM25 function and the index parameters used here."""
EMBEDDED = "milvus_lite"


def is_embedded(version: str, *, store: str) -> bool:
    """Return whether a version is that of Milvus Lite; raise ``Unsupported`` for a server that is too old."""
    if version.startswith(EMBEDDED):
        return True
    parts = version.lstrip("v").split(".")
    numbers = tuple(int(part) for part in parts[:2] if part.isdecimal())
    if len(numbers) == 2 and numbers < OLDEST:
        message = f"the server is Milvus {version}; 2.5 or newer is needed"
        raise Unsupported(message, store=store, operation="connect")
    return False
