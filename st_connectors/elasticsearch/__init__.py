"""Elasticsearch 8.19 and 9.1 or newer: ``elasticsearch://host:9200``, with TLS ``elasticsearch+https://``.

Options of the address: ``sparse`` (``sparse_vector``, or ``rank_features``), ``dense_index`` (``hnsw``, ``flat``, and the quantised ``int8_hnsw``,
``int4_hnsw``, ``bbq_hnsw``, ``int8_flat``, ``int4_flat``, ``bbq_flat``), ``shards``, ``replicas``, ``timeout`` in seconds, and with TLS ``ca``, a file of
PEM certificates to judge the server's by. All but the last two are for making a collection, which remembers them.

``fusion=native`` lets the server fuse by its ``rrf`` retriever, where its licence (Enterprise or trial) has it and nobody asks for the legs; else, and
by default, legs go in one ``_msearch`` and are fused here. What it sends follows Elasticsearch's documentation and was not run on an engine.

``vocabulary`` (a ``tokenizer.json``, a ``vocab.txt``, a folder with one, or ``builtin:sparse``) makes the keys of sparse fields tokens; it is named again
each time the collection is opened.

``ST_ELASTICSEARCH_API_KEY`` signs in.

For people with their own index and client: :func:`sparse_vector_query`, :func:`rank_features_query`, :func:`rrf_retriever`,
:func:`linear_retriever`, :func:`filter_to_elasticsearch` and :func:`mapping`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from st_connectors._lucene.entry import Entry
from st_connectors._lucene.loading import LOADING
from st_connectors._lucene.sizing import SIZING as LUCENE
from st_connectors.lazy import lazy_attributes
from st_connectors.plugin import Plugin
from st_connectors.schema import FusionMethod, Metric, Quantization
from st_connectors.sizing import DenseLayout
from st_connectors.store import Capabilities, Precision

if TYPE_CHECKING:
    from st_connectors.elasticsearch.conversions import (
        filter_to_elasticsearch,
        linear_retriever,
        mapping,
        rank_features_query,
        rrf_retriever,
        sparse_vector_query,
    )

__all__ = [
    "PLUGIN",
    "filter_to_elasticsearch",
    "linear_retriever",
    "mapping",
    "rank_features_query",
    "rrf_retriever",
    "sparse_vector_query",
]

CAPABILITIES = Capabilities(
    metrics=frozenset(Metric),
    quantizations=frozenset(Quantization),
    sparse=True,
    text=True,
    optional_vectors=True,
    # With fusion=native and a licence for it. Not `linear`, whose minmax leaves a query's scores as they are where all are equal; the reference gives each 1.
    fusion=frozenset({FusionMethod.RRF, FusionMethod.RRF_WEIGHTED}),
    filters=frozenset({"eq", "in", "range", "exists", "and", "or", "not"}),
    efforts=frozenset({"exact", "default", "candidates"}),
    persistent=True,
    partial_failure=True,
    max_batch=1000,
    # A server takes 100 MB (http.max_content_length); texts and filterable fields go twice, and payloads as escaped strings.
    max_bytes=15_000_000,
    max_dimension=4096,
    max_limit=10_000,  # index.max_result_window, and the most candidates of a knn query
    max_query_terms=1024,  # the least that max_clause_count can be since 8.1
    bulk_loading=frozenset(LOADING),
    fields={
        "dense": Precision(exact=True, score_rtol=1e-5),
        # Lucene keeps nine significant bits of a weight, cut off: 2 ** -8 at most.
        "sparse": Precision(score_rtol=0.004),
        "text": Precision(score_rtol=1e-5),
    },
)

_TUNING = "Elasticsearch, Tune approximate kNN search"
_GRAPH = 64  # 4 bytes for each of m = 16 neighbours, by the same page
_EVERY = "compares with every vector, so that time grows with the records"
_SHORT = "the full vectors stay on disk and order the candidates again"


def _layouts() -> tuple[DenseLayout, ...]:
    """Graphs from the most faithful to the smallest, then those without."""
    int4_even, bbq_least = 2, 64  # the documentation of dense_vector
    corrections = 16  # what 9.5.3 keeps beside each vector; the page says 4
    return (
        DenseLayout("hnsw", 4, "a graph over full vectors", _TUNING, graph=_GRAPH, options={"dense_index": "hnsw"}),
        *(
            DenseLayout(
                f"{short}_{kind}",
                each,
                f"{bits} a dimension; {_SHORT if kind == 'hnsw' else _EVERY}",
                _TUNING,
                per_vector=more,
                graph=_GRAPH if kind == "hnsw" else 0,
                quantization=quantization,
                options={"dense_index": f"{short}_{kind}"},
                least=bbq_least if short == "bbq" else 1,
                multiple=int4_even if short == "int4" else 1,
            )
            for kind in ("hnsw", "flat")
            for short, each, more, bits, quantization in (
                ("int8", 1, corrections, "one byte", Quantization.INT8),
                ("int4", 0.5, corrections, "half a byte", Quantization.NONE),
                ("bbq", 0.125, 14, "one bit", Quantization.BINARY),
            )
        ),
        DenseLayout("flat", 4, _EVERY, _TUNING, options={"dense_index": "flat"}),
    )


SIZING = {"": replace(LUCENE, dense=_layouts())}


_ENTRY = Entry(__name__, "elasticsearch", ("elasticsearch", "elastic_transport"), CAPABILITIES)
PLUGIN = Plugin(
    name="elasticsearch",
    extra="elasticsearch",
    variants={
        "": "a server over HTTP (elasticsearch://host:9200)",
        "https": "a server over TLS (elasticsearch+https://host:9200)",
    },
    capabilities=CAPABILITIES,
    connect=_ENTRY.connect,
    collections=_ENTRY.collections,
    adopt=_ENTRY.adopt,
    loading=_ENTRY.loading,
    sizing=SIZING,
)

__getattr__ = lazy_attributes(__name__, {name: "conversions" for name in __all__ if name != "PLUGIN"})
