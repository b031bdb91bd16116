"""Apply the settings for bulk loading to a server, so that it builds no graph in the meantime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, cast

from st_connectors.plugin import Address
from st_connectors.qdrant.engine import translate_errors
from st_connectors.qdrant.store import open_engine

if TYPE_CHECKING:
    from st_connectors.qdrant.client import ClientEngine

__all__ = ["loading"]

OPERATION = "bulk_loading"
LOADING = 1_000_000_000
"""The indexing threshold during bulk loading, in kilobytes of vectors: more than a segment contains."""
DEFAULT = 10_000
"""The default threshold of servers since 1.16, needed because an update can set a threshold but not remove it."""


def loading(address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
    """Return a context manager that applies the settings for bulk loading; it does nothing unless there is a server."""
    engine = open_engine(address, collection, client)
    return _with_threshold(cast("ClientEngine", engine)) if engine.capabilities.bulk_loading else nullcontext()


@contextmanager
def _with_threshold(engine: ClientEngine) -> Iterator[None]:
    """Raise the indexing threshold for the block, restore it afterwards, also after an error, and close the engine."""
    with closing(engine):
        with translate_errors(engine, OPERATION):
            original = engine.indexing_threshold()
        try:
            _set(engine, LOADING)
            yield
        finally:
            _set(engine, DEFAULT if original is None else original)


def _set(engine: ClientEngine, kilobytes: int) -> None:
    with translate_errors(engine, OPERATION):
        engine.set_indexing_threshold(kilobytes)
