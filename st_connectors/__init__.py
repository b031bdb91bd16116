"""Sentence-Transformers-class encoders in front of vector stores: one store contract, ingest that loses nothing, hybrid search.

Names are imported when first used, so that ``import st_connectors`` loads neither a model nor a store's client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from st_core import __version__

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.ingest import Document, IngestReport
    from st_connectors.registry import collections, open_store
    from st_connectors.search import SearchResult
    from st_connectors.where import parse_where

_WHERE = {
    "Document": "ingest",
    "Index": "index",
    "IngestReport": "ingest",
    "SearchResult": "search",
    "collections": "registry",
    "open_store": "registry",
    "parse_where": "where",
}

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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
