"""Milvus: embedded (``milvus+lite:PATH``) and servers (``milvus://host:19530``, ``milvus+https://``).

For people with their own collection and client: :func:`sparse_vector`, :func:`hybrid_requests` and :func:`filter_to_milvus`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from st_connectors.errors import NotFound
from st_connectors.plugin import Address, Plugin
from st_connectors.schema import FilterKind, Metric, Quantization, Schema
from st_connectors.sizing import DenseLayout, Sizing
from st_connectors.store import Capabilities, Precision, Store

if TYPE_CHECKING:
    from st_connectors.milvus.conversions import filter_to_milvus, hybrid_requests, sparse_vector

__all__ = ["PLUGIN", "filter_to_milvus", "hybrid_requests", "sparse_vector"]

CAPABILITIES = Capabilities(
    metrics=frozenset(Metric),
    quantizations=frozenset({Quantization.NONE}),
    sparse=True,
    text=True,
    optional_vectors=True,
    filters=frozenset({"eq", "in", "range", "exists", "and", "or", "not"}),
    efforts=frozenset({"exact", "default", "candidates"}),
    persistent=True,
    max_batch=1000,
    # A request may take 64 MiB; texts and filterable values are sent beside the payload that holds them.
    max_bytes=20_000_000,
    max_dimension=32_768,
    max_limit=16_384,
    fields={
        "dense": Precision(score_rtol=1e-5),
        "sparse": Precision(score_rtol=1e-5),
        "text": Precision(score_rtol=1e-5),
    },
)

_FLAT = DenseLayout(
    "flat",
    4,
    "compares with every vector, exactly, so that time grows with the records",
    "Milvus, FLAT: float32 as they are",
    options={"index": "flat"},
)
_HNSW = DenseLayout(
    "hnsw",
    4,
    "a graph over full vectors",
    "hnswlib, ALGO_PARAMS: at most 10 bytes for each of M = 16",
    graph=160,
    options={"index": "hnsw"},
)
_SERVER = Sizing(dense=(_HNSW, _FLAT), sparse_entry=8, sparse_source="an index uint32 and a weight float32")
SIZING = {"": _SERVER, "lite": replace(_SERVER, dense=(_FLAT, _HNSW))}


def _module(name: str) -> Any:
    """A module of this package that needs the driver."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in {"pymilvus", "milvus_lite"}:
            raise
        raise ImportError(f"{error.name} is missing: pip install 'st-connectors[milvus]'") from error


def _connect(address: Address, collection: str, schema: Schema | None, client: object | None) -> Store:
    ways, stores = _module("client"), _module("store")
    if schema is None and client is None and "lite" in address.variants and not ways.exists(address):
        told = f"there is no collection {collection!r} at {address}; create it, or check the path"
        raise NotFound(told, store=address.scheme, operation="connect")
    held = ways.open_client(address, client)
    made: Store = (
        stores.opened(held, collection, str(address), CAPABILITIES)
        if schema is None
        else stores.MilvusStore(held, _module("rows").Ours(schema, held.layout), CAPABILITIES)
    )
    return made


def _adopt(address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None) -> Store:
    ways = _module("client")
    if client is None and "lite" in address.variants and not ways.exists(address):
        told = f"there is no collection {collection!r} at {address}; check the path"
        raise NotFound(told, store=address.scheme, operation="adopt")
    held = ways.open_client(address, client)
    made: Store = _module("store").adopted(held, collection, str(address), filterable, CAPABILITIES)
    return made


def _collections(address: Address, client: object | None) -> list[str]:
    ways = _module("client")
    if client is None and "lite" in address.variants and not ways.exists(address):
        return []
    return list(_module("store").collections(ways.open_client(address, client)))


PLUGIN = Plugin(
    name="milvus",
    extra="milvus",
    variants={
        "lite": "a folder, Milvus Lite in this process (milvus+lite:PATH)",
        "": "a server (milvus://host:19530/database)",
        "https": "a server with TLS (milvus+https://host:443)",
    },
    capabilities=CAPABILITIES,
    connect=_connect,
    collections=_collections,
    adopt=_adopt,
    sizing=SIZING,
)


def __getattr__(name: str) -> Any:
    """Import a public conversion when it is first asked for."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_module("conversions"), name)
