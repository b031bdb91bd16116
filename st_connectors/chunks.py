"""Ids and payload marks of windows, written by ingest and read by search.

The first window has the id of the document, so that documents are read and replaced by id even if they were split. The
id of each further window is the id of the document with a reserved suffix. The payload of each window of a split
document contains the position of the window under a reserved key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "CHUNK_KEY",
    "SYNC_KEY",
    "chunk_payload",
    "document_id_of",
    "is_window_id",
    "parent_of",
    "window_count",
    "window_id",
    "window_number",
]

CHUNK_KEY = "_chunk"
"""The payload key reserved for the position of a window in its document."""
SYNC_KEY = "_sync"
"""The payload key reserved for the hashes by which a sync recognizes what has changed."""

_WINDOW = re.compile(r"#window-\d+\Z")


def window_id(parent: str, number: int) -> str:
    """Return the id of a window of the document ``parent``; windows are numbered from 0."""
    return parent if number == 0 else f"{parent}#window-{number}"


def is_window_id(value: str) -> bool:
    """Return whether an id has the suffix reserved for windows."""
    return _WINDOW.search(value) is not None


def chunk_payload(parent: str, number: int, count: int, start: int, end: int) -> dict[str, Any]:
    """Return the payload entry with the position of a window.

    ``count`` is the number of windows of the document ``parent``. ``start`` and ``end`` are character offsets in the
    text of the document.
    """
    return {"parent": parent, "number": number, "of": count, "start": start, "end": end}


def parent_of(identifier: str, payload: Mapping[str, Any]) -> str:
    """Return the id of the document to which a record belongs."""
    chunk = payload.get(CHUNK_KEY)
    return str(chunk["parent"]) if isinstance(chunk, Mapping) and "parent" in chunk else identifier


def window_count(payload: Mapping[str, Any]) -> int:
    """Return the number of windows of the document to which a record belongs; 1 if the document was not split."""
    chunk = payload.get(CHUNK_KEY)
    return int(chunk["of"]) if isinstance(chunk, Mapping) and "of" in chunk else 1


def window_number(payload: Mapping[str, Any]) -> int:
    """Return the number of the window that a record contains, from 0; 0 if the document was not split."""
    chunk = payload.get(CHUNK_KEY)
    return int(chunk["number"]) if isinstance(chunk, Mapping) and "number" in chunk else 0


def document_id_of(identifier: str) -> str:
    """Return an id without the suffix reserved for windows, which is the same for all windows of a document."""
    return _WINDOW.sub("", identifier)
