"""Refused documents as JSON, to be mended and ingested again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from st_connectors.ingest.documents import Document
from st_connectors.ingest.report import Refusal

__all__ = ["refusal_to_json"]


def refusal_to_json(refusal: Refusal) -> dict[str, Any]:
    """Return plain values for JSON, with the document as far as it was read.

    A line that could not be parsed is its text; bytes that are not UTF-8 are lone surrogates in it, as with Python's
    ``surrogateescape``. Values that JSON does not have are texts.
    """
    return refusal.to_json() | {"document": _plain(refusal.document)}


def _plain(value: object) -> Any:
    if value is None or isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    match value:
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case Document():
            return {"id": value.id, "text": value.text} | _plain({**value.payload, "id": value.id})
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)
