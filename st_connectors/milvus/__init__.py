"""Milvus: embedded (``milvus+lite:PATH``) and servers (``milvus://host:19530``, ``milvus+https://``).

For use with your own collection and client: :func:`sparse_vector`, :func:`hybrid_requests` and
:func:`filter_to_milvus`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from st_connectors.lazy import lazy_attributes, lazy_function
from st_connectors.plugin import Place, Plugin
from st_connectors.schema import Metric, Quantization
from st_connectors.sizing import DenseLayout, Sizing
from st_connectors.store import Capabilities, Precision

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
    # A server accepts 64 MiB per request; texts and filterable values are sent in addition to the payload that contains
    # them.
    max_bytes=20_000_000,
    max_dimension=32_768,
    max_limit=16_384,
    fields={
        "dense": Precision(score_rtol=1e-5),
        "sparse": Precision(score_rtol=1e-5),
        "text": Precision(score_rtol=1e-5),
    },
    speculative_search=True,
    alterable=frozenset({"models", "fusion"}),
)

_FLAT = DenseLayout(
    "flat",
    4,
    "compares with every vector, exactly, in time proportional to the records",
    "Milvus, FLAT: uncompressed float32",
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


_STORE = "st_connectors.milvus.store"
_DRIVERS = frozenset({"pymilvus", "milvus_lite"})

PLUGIN = Plugin(
    name="milvus",
    extra="milvus",
    variants={
        "lite": "a folder, Milvus Lite in this process (milvus+lite:PATH)",
        "": "a server (milvus://host:19530/database)",
        "https": "a server with TLS (milvus+https://host:443)",
    },
    capabilities=CAPABILITIES,
    connect=lazy_function(_STORE, "connect", extra="milvus", drivers=_DRIVERS),
    collections=lazy_function(_STORE, "collections", extra="milvus", drivers=_DRIVERS),
    adopt=lazy_function(_STORE, "adopt", extra="milvus", drivers=_DRIVERS),
    sizing=SIZING,
    places={"": Place.SERVER, "https": Place.SERVER, "lite": Place.PATH},
    secrets=("ST_MILVUS_TOKEN",),
)


_PUBLIC = {name: "conversions" for name in __all__ if name != "PLUGIN"}
__getattr__ = lazy_attributes(__name__, _PUBLIC, extra="milvus", drivers=_DRIVERS)
