"""Sentence-Transformers encoders for vector stores: one store contract, ingest without loss, hybrid search.

Names are imported when first used, so that ``import st_connectors`` loads neither a model nor a store's client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_connectors.lazy import lazy_attributes
from st_core import __version__

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.ingest import Document, IngestReport
    from st_connectors.registry import collections, open_store
    from st_connectors.search import SearchResult
    from st_connectors.where import parse_where

__all__ = [
    "Document",
    "Index",
    "IngestReport",
    "SearchResult",
    "__version__",
    "collections",
    "open_store",
    "parse_where",
]


__getattr__ = lazy_attributes(
    __name__,
    {
        "Document": "ingest",
        "Index": "index",
        "IngestReport": "ingest",
        "SearchResult": "search",
        "collections": "registry",
        "open_store": "registry",
        "parse_where": "where",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
