"""The set-up of each store by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from st_connectors.lazy import lazy_function
from st_connectors.plugin import Address
from st_connectors.setup.base import SetUp
from st_connectors.setup.encoder import Encoder
from st_connectors.setup.options import Options

__all__ = ["PORTS", "Wish", "open_setup"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be set up: the options, and the encoder server.

    ``local`` is the address of the encoder server as seen from here, and ``key`` its key. ``allows_settings`` permits
    changing settings of the store.
    """

    options: Options
    encoder: Encoder
    local: str
    key: str | None = None
    allows_settings: bool = False


def _opener(module: str, extra: str, *drivers: str) -> Callable[[Address, Wish], SetUp]:
    return lazy_function(f"st_connectors.setup.{module}", "open_setup", extra=extra, drivers=drivers)


_OPENERS: Mapping[str, Callable[[Address, Wish], SetUp]] = {
    "opensearch": _opener("opensearch.setup", "opensearch", "opensearchpy"),
    "elasticsearch": _opener("elasticsearch.setup", "elasticsearch", "elasticsearch", "elastic_transport"),
    "qdrant": _opener("qdrant", "qdrant"),
    "milvus": _opener("milvus", "milvus"),
}
"""Functions that open the set-up of a store; nothing is sent. They raise ImportError if its extra is missing."""

PORTS = {"opensearch": 9200, "elasticsearch": 9200, "qdrant": 6333, "milvus": 19530}
"""The usual port of each store that is set up by requests."""


def open_setup(address: Address, wish: Wish) -> SetUp:
    """Return the set-up of the store at an address; raise ValueError for a store that calls no encoder server."""
    if address.name not in _OPENERS or address.host is None:
        raise ValueError(f"expected the address of a server of {', '.join(_OPENERS)}, got {address}")
    return _OPENERS[address.name](address, wish)
