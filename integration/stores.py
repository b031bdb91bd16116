"""The available stores by address: embedded ones in a folder, servers as ``integration.nodes`` finds them."""

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
"""The engines that are measured by default; ``qdrant-memory``, an imitation in Python, is opened by name."""


class Absent(Exception):
    """A store is not available; the message says why."""


@contextmanager
def opened(store: str, folder: Path) -> Iterator[str]:
    """Yield the address of a store; raise :class:`Absent` if a server is not available."""
    if store in _EMBEDDED:
        yield _EMBEDDED[store].format(folder / store)
        return
    found = find(store)
    if isinstance(found, Missing):
        raise Absent(f"{store}: {found.reason}")
    with found.open() as url:
        yield address_of(store, url)


def address_of(engine: str, url: str) -> str:
    """Return the address of a store for the address of a server: ``elasticsearch://host:9200`` for ``http://host:9200``.

    The address of a store is returned unchanged.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return url
    variant = "+https" if parts.scheme == "https" else ""
    return f"{engine.partition('-')[0]}{variant}://{parts.netloc}{parts.path.rstrip('/')}"
