"""Hashes of the contents of documents, which a sync stores with the records to recognize what has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from st_connectors.chunks import CHUNK_KEY, SYNC_KEY
from st_connectors.ingest.windows import Prepared
from st_connectors.layers.records import check_payload
from st_connectors.schema import Schema

__all__ = ["Content", "content_of", "rest_hash", "with_content"]

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Content:
    """64-bit hashes of a document: of what decides its vectors, and of the rest of its payload."""

    text: str
    payload: str

    def to_json(self) -> dict[str, str]:
        """Return the payload entry."""
        return {"text": self.text, "payload": self.payload}


def content_of(item: Prepared, schema: Schema, text_key: str, models: str) -> Content | None:
    """Return the hashes of a document; None if the store will refuse its payload.

    ``models`` identifies the models. The hash of the text covers them, and the text and the offsets of its windows.
    """
    try:
        payload = check_payload(item.document.payload, schema)
    except (ValueError, TypeError):
        return None
    chunks = [window.payload.get(CHUNK_KEY) for window in item.windows]
    return Content(_hash([models, item.document.text, chunks]), rest_hash(payload, text_key))


def rest_hash(payload: Mapping[str, Any], text_key: str) -> str:
    """Return the hash of a payload without its text and without reserved keys; the order of keys has no effect."""
    return _hash({key: value for key, value in payload.items() if key not in (text_key, CHUNK_KEY, SYNC_KEY)})


def with_content(item: Prepared, content: Content) -> Prepared:
    """Return a document with its hashes in the payload of each window."""
    entry = content.to_json()
    windows = tuple(replace(each, payload={**each.payload, SYNC_KEY: entry}) for each in item.windows)
    return replace(item, windows=windows)


def _hash(value: Any) -> str:
    return xxhash.xxh3_64_hexdigest(_ENCODER.encode(value).encode())
