"""Ids and payload marks of windows, written by ingest and read by search.

The first window has the document's id, so that documents are read and replaced by id whether they were split or not;
the others have the id with a reserved ending. Each window of a split document has its place under one reserved payload
key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["CHUNK_KEY", "chunk_payload", "is_window_id", "parent_of", "window_count", "window_id"]

CHUNK_KEY = "_chunk"
"""The payload key reserved for the place of a window in its document."""

_WINDOW = re.compile(r"#window-\d+\Z")


def window_id(parent: str, number: int) -> str:
    """Return the id of a document's window, numbered from 0."""
    return parent if number == 0 else f"{parent}#window-{number}"


def is_window_id(value: str) -> bool:
    """Return whether an id has the ending reserved for windows."""
    return _WINDOW.search(value) is not None


def chunk_payload(parent: str, number: int, count: int, start: int, end: int) -> dict[str, Any]:
    """Return the place of a window; ``start`` and ``end`` are character offsets in the document's text."""
    return {"parent": parent, "number": number, "of": count, "start": start, "end": end}


def parent_of(identifier: str, payload: Mapping[str, Any]) -> str:
    """Return the id of the document that a record is, or is a window of."""
    chunk = payload.get(CHUNK_KEY)
    return str(chunk["parent"]) if isinstance(chunk, Mapping) and "parent" in chunk else identifier


def window_count(payload: Mapping[str, Any]) -> int:
    """Return the number of windows of the record's document; 1 where it was not split."""
    chunk = payload.get(CHUNK_KEY)
    return int(chunk["of"]) if isinstance(chunk, Mapping) and "of" in chunk else 1
