"""A collection's loading settings on a server: no graph is built while much is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from st_connectors.qdrant.client import ClientEngine
from st_connectors.qdrant.store import border

__all__ = ["loading"]

OPERATION = "bulk_loading"
LOADING = 1_000_000_000
"""Kilobytes of vectors above which a segment gets a graph: more than a segment holds."""
DEFAULT = 10_000
"""What a server since 1.16 does where nothing is set; an update can set a threshold but not take it out."""


@contextmanager
def loading(engine: ClientEngine) -> Iterator[None]:
    """A high threshold for the block; afterwards, whatever happened in it, the threshold is what was found. Closes the engine."""
    with closing(engine):
        with border(engine, OPERATION):
            found = engine.indexing_threshold()
        try:
            _set(engine, LOADING)
            yield
        finally:
            _set(engine, DEFAULT if found is None else found)


def _set(engine: ClientEngine, kilobytes: int) -> None:
    with border(engine, OPERATION):
        engine.set_indexing_threshold(kilobytes)
