"""The stores at hand by their addresses: embedded ones in a folder, servers as ``integration.nodes`` finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from integration.nodes import Missing, find

__all__ = ["STORES", "Absent", "address_of", "opened"]

_EMBEDDED = {
    "memory": "memory:{}",
    "qdrant-edge": "qdrant+edge:{}",
    "milvus-lite": "milvus+lite:{}",
    "qdrant-memory": "qdrant+memory:{}",
}
STORES = ("memory", "qdrant-edge", "milvus-lite", "elasticsearch-9", "opensearch")
"""The engines that are measured one and all; ``qdrant-memory``, an imitation of one in Python, is opened by name."""


class Absent(Exception):
    """A store is not at hand; the text says why."""


@contextmanager
def opened(store: str, folder: Path) -> Iterator[str]:
    """The address of a store for as long as the block lasts; raises :class:`Absent` where a server is not at hand."""
    if store in _EMBEDDED:
        yield _EMBEDDED[store].format(folder / store)
        return
    found = find(store)
    if isinstance(found, Missing):
        raise Absent(f"{store}: {found.reason}")
    with found.open() as url:
        yield address_of(store, url)


def address_of(engine: str, url: str) -> str:
    """A server's address as that of a store: ``http://host:9200`` of ``elasticsearch-9`` is ``elasticsearch://host:9200``; a store's is left as it is."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return url
    variant = "+https" if parts.scheme == "https" else ""
    return f"{engine.partition('-')[0]}{variant}://{parts.netloc}{parts.path.rstrip('/')}"
