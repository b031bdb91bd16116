"""Qdrant: embedded (``qdrant+edge:PATH``), in this process for tests (``qdrant+memory:``), and servers (``qdrant://``, ``qdrant+grpc://``).

For use with your own collection and client: :func:`sparse_vector`, :func:`hybrid_query` and :func:`filter_to_qdrant`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from st_connectors.lazy import lazy_attributes, lazy_function
from st_connectors.plugin import Place, Plugin
from st_connectors.schema import FusionMethod, Metric, Quantization
from st_connectors.sizing import DenseLayout, Sizing
from st_connectors.store import Capabilities, Precision

if TYPE_CHECKING:
    from st_connectors.qdrant.conversions import filter_to_qdrant, hybrid_query, sparse_vector

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
    alterable=frozenset({"models", "fusion", "filterable", "quantization"}),
)

# The embedded engine builds graphs only when a store is refreshed, so that loading needs no settings.
EDGE = replace(CAPABILITIES, bulk_loading=frozenset(), alterable=CAPABILITIES.alterable - {"quantization"})
MEMORY = replace(
    EDGE,
    quantizations=frozenset({Quantization.NONE}),
    efforts=frozenset({"exact", "default"}),
    persistent=False,
)
# A server accepts 32 MB (service.max_request_size_mb); a number in JSON can be twice as long as the guard layer
# estimates.
REST = replace(CAPABILITIES, max_batch=500, max_bytes=15_000_000)
GRPC = replace(CAPABILITIES, max_batch=500)

_CAPACITY = "Qdrant, Capacity planning"
_FULL = DenseLayout("hnsw", 4, "full vectors; half as much again for graph and versions", _CAPACITY, factor=1.5)
_GRAPH = 128  # twice m = 16 neighbours of four bytes on the lowest level
_ON_DISK = "set on_disk=true on the dense vector (update collection), or the full vectors stay in memory as well"
_SHORT = "; the full vectors are on disk, which slows rescoring"
_SPARSE = "a uint32 index, a float32 weight, and the largest following weight"
_LOCAL = Sizing(dense=(_FULL,), sparse_entry=12, sparse_source=_SPARSE)
SIZING = {
    # Edge cannot store full vectors on disk, so that quantization would need more memory.
    "edge": _LOCAL,
    "memory": _LOCAL,
    "": replace(
        _LOCAL,
        dense=(
            _FULL,
            DenseLayout(
                "hnsw+int8",
                1,
                f"one byte per dimension{_SHORT}",
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
                f"one bit per dimension, for models trained for it{_SHORT}",
                f"{_CAPACITY}, with Quantization",
                graph=_GRAPH,
                factor=1.5,
                quantization=Quantization.BINARY,
                by_hand=_ON_DISK,
            ),
        ),
    ),
}


_STORE = "st_connectors.qdrant.store"
_DRIVERS = frozenset({"qdrant_client", "qdrant_edge"})

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
    connect=lazy_function(_STORE, "connect", extra="qdrant", drivers=_DRIVERS),
    collections=lazy_function(_STORE, "collections", extra="qdrant", drivers=_DRIVERS),
    adopt=lazy_function(_STORE, "adopt", extra="qdrant", drivers=_DRIVERS),
    loading=lazy_function("st_connectors.qdrant.loading", "loading", extra="qdrant", drivers=_DRIVERS),
    sizing=SIZING,
    places={
        "edge": Place.PATH,
        "memory": Place.NAME,
        **dict.fromkeys(("", "https", "grpc", "grpc+https"), Place.SERVER),
    },
    secrets=("ST_QDRANT_API_KEY",),
)


_PUBLIC = {name: "conversions" for name in __all__ if name != "PLUGIN"}
__getattr__ = lazy_attributes(__name__, _PUBLIC, extra="qdrant", drivers=_DRIVERS)
