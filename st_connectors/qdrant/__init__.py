"""Qdrant: embedded (``qdrant+edge:PATH``), in this process for tests (``qdrant+memory:``), and servers (``qdrant://``, ``qdrant+grpc://``).

For people with their own collection and client: :func:`sparse_vector`, :func:`hybrid_query` and :func:`filter_to_qdrant`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from st_connectors.plugin import Address, Plugin
from st_connectors.schema import FilterKind, FusionMethod, Metric, Quantization, Schema
from st_connectors.sizing import DenseLayout, Sizing
from st_connectors.store import Capabilities, Precision, Store

if TYPE_CHECKING:
    from st_connectors.qdrant.conversions import filter_to_qdrant, hybrid_query, sparse_vector
    from st_connectors.qdrant.store import Engine

__all__ = ["PLUGIN", "filter_to_qdrant", "hybrid_query", "sparse_vector"]

CAPABILITIES = Capabilities(
    metrics=frozenset(Metric),
    quantizations=frozenset(Quantization),
    sparse=True,
    text=True,
    optional_vectors=True,
    fusion=frozenset({FusionMethod.RRF}),
    filters=frozenset({"eq", "in", "range", "exists", "and", "or", "not"}),
    efforts=frozenset({"exact", "default", "candidates"}),
    persistent=True,
    max_batch=1000,
    max_dimension=65_536,
    bulk_loading=frozenset({"optimizers_config.indexing_threshold"}),
    fields={
        "dense": Precision(score_rtol=1e-5),
        "sparse": Precision(score_rtol=1e-5),
        "text": Precision(score_rtol=1e-5),
    },
)

# Embedded, graphs are built when a store is refreshed, never meanwhile: there is nothing to set.
_EDGE = replace(CAPABILITIES, bulk_loading=frozenset())
_MEMORY = replace(
    _EDGE,
    quantizations=frozenset({Quantization.NONE}),
    efforts=frozenset({"exact", "default"}),
    persistent=False,
)
# A server takes 32 MB (service.max_request_size_mb), and a number in JSON can be twice as long as guarded's estimate.
_REST = replace(CAPABILITIES, max_batch=500, max_bytes=15_000_000)
_GRPC = replace(CAPABILITIES, max_batch=500)

_CAPACITY = "Qdrant, Capacity planning"
_FULL = DenseLayout("hnsw", 4, "full vectors; half as much again for graph and versions", _CAPACITY, factor=1.5)
_GRAPH = 128  # twice m = 16 neighbours of four bytes at the lowest level
_ON_DISK = "set on_disk=true on the dense vector (update collection), or the full vectors stay in memory as well"
_SHORT = "; the full vectors are on disk, slower to order again by"
_SPARSE = "an index uint32, a weight float32, and the greatest weight that follows"
_LOCAL = Sizing(dense=(_FULL,), sparse_entry=12, sparse_source=_SPARSE)
SIZING = {
    # Edge has no switch for full vectors on disk, so that quantization would add to the memory.
    "edge": _LOCAL,
    "memory": _LOCAL,
    "": replace(
        _LOCAL,
        dense=(
            _FULL,
            DenseLayout(
                "hnsw+int8",
                1,
                f"one byte a dimension{_SHORT}",
                f"{_CAPACITY}, with Quantization",
                per_vector=4,
                graph=_GRAPH,
                factor=1.5,
                quantization=Quantization.INT8,
                by_hand=_ON_DISK,
            ),
            DenseLayout(
                "hnsw+binary",
                0.125,
                f"one bit a dimension, for models made for it{_SHORT}",
                f"{_CAPACITY}, with Quantization",
                graph=_GRAPH,
                factor=1.5,
                quantization=Quantization.BINARY,
                by_hand=_ON_DISK,
            ),
        ),
    ),
}


def _engine(address: Address, collection: str, client: object | None) -> Engine:
    """The way in that an address names; nothing is sent yet."""
    if "edge" in address.variants:
        if client is not None:
            raise TypeError("qdrant+edge connect: there is no client object to hand in; name the folder")
        embedded: Engine = _module("edge").EdgeEngine(_edge_folder(address), collection, _EDGE)
        return embedded
    opened = _module("client").open_client(address, client)
    limits = _MEMORY if opened.local else _GRPC if opened.grpc else _REST
    connected: Engine = _module("client").ClientEngine(opened, collection, limits)
    return connected


def _edge_folder(address: Address) -> str:
    """The folder of an embedded store; raises ValueError for what would otherwise be taken for the current one."""
    if address.host is not None:
        raise ValueError(f"qdrant+edge is a folder, not a server: write qdrant+edge:PATH, without //, not {address}")
    if address.options:
        raise ValueError(f"qdrant+edge has no options, and {min(address.options)!r} was given: write qdrant+edge:PATH")
    if not address.path:
        raise ValueError("qdrant+edge needs a folder: write qdrant+edge:PATH, with . for the current one")
    return address.path


def _module(name: str) -> Any:
    """A module of this package that needs a driver."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("qdrant_"):
            raise
        raise ImportError(f"{error.name} is missing: pip install 'st-connectors[qdrant]'") from error


def _connect(address: Address, collection: str, schema: Schema | None, client: object | None) -> Store:
    from st_connectors.qdrant.store import QdrantStore, opened

    engine = _engine(address, collection, client)
    return opened(engine, collection, str(address)) if schema is None else QdrantStore(engine, schema)


def _adopt(address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None) -> Store:
    from st_connectors.qdrant.store import adopted

    return adopted(_engine(address, collection, client), collection, str(address), filterable)


def _loading(address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
    engine = _engine(address, collection, client)
    if not engine.capabilities.bulk_loading:
        return nullcontext()
    block: AbstractContextManager[None] = _module("loading").loading(engine)
    return block


def _collections(address: Address, client: object | None) -> list[str]:
    if "edge" in address.variants:
        return list(_module("edge").collections(_edge_folder(address)))
    return list(_module("client").collections(address, client))


PLUGIN = Plugin(
    name="qdrant",
    extra="qdrant",
    variants={
        "edge": "a folder, the server's engine in this process (qdrant+edge:PATH)",
        "memory": "qdrant-client's local mode, for tests up to 2,000 records (qdrant+memory:NAME)",
        "": "a server over REST (qdrant://host:6333)",
        "https": "a server over REST and TLS (qdrant+https://host:6333)",
        "grpc": "a server over gRPC (qdrant+grpc://host:6334)",
        "grpc+https": "a server over gRPC and TLS (qdrant+grpc+https://host:6334)",
    },
    capabilities=CAPABILITIES,
    connect=_connect,
    collections=_collections,
    adopt=_adopt,
    loading=_loading,
    sizing=SIZING,
)


def __getattr__(name: str) -> Any:
    """Import a public conversion when it is first asked for."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_module("conversions"), name)
