"""The stores at hand by their addresses: embedded ones in a folder, servers as ``integration.nodes`` finds them."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from integration.nodes import Missing, find

__all__ = ["STORES", "Absent", "opened"]

_EMBEDDED = {"memory": "memory:{}", "qdrant-edge": "qdrant+edge:{}", "milvus-lite": "milvus+lite:{}"}
_SERVERS = ("elasticsearch-9", "opensearch")
STORES = (*_EMBEDDED, *_SERVERS)


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
        parts = urllib.parse.urlsplit(url)
        tls = "+https" if parts.scheme == "https" else ""
        yield f"{store.partition('-')[0]}{tls}://{parts.netloc}{parts.path.rstrip('/')}"
