"""OpenSearch 2.19 or newer: ``opensearch://host:9200``, with TLS ``opensearch+https://``.

Options of the address: ``sparse`` (``rank_features``, or ``seismic`` from 3.3), ``engine`` of dense vectors (``lucene``, or ``faiss``), ``shards``,
``replicas``, ``timeout`` in seconds, and with TLS ``ca``, a file of PEM certificates to judge the server's by; for ``sparse=seismic`` also the parameters
of its index (``n_postings``, ``cluster_ratio``, ``summary_prune_ratio``, ``approximate_threshold``, ``quantization_ceiling_ingest``,
``quantization_ceiling_search``). All but ``timeout`` and ``ca`` are for making a collection, which remembers them. What ``seismic`` and ``faiss``
send follows OpenSearch's documentation and was not run on an engine.

``vocabulary`` (a ``tokenizer.json``, a ``vocab.txt``, a folder with one, or ``builtin:sparse``) makes the keys of sparse fields tokens; it is named again
each time the collection is opened.

``ST_OPENSEARCH_USERNAME`` (``admin`` where it is not set) and ``ST_OPENSEARCH_PASSWORD`` sign in.

For people with their own index and client: :func:`rank_features_query`, :func:`neural_sparse_query`, :func:`seismic_query`, :func:`knn_query`,
:func:`filter_to_opensearch` and :func:`mapping`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from st_connectors._lucene.entry import Entry
from st_connectors._lucene.loading import LOADING
from st_connectors._lucene.sizing import SIZING as LUCENE
from st_connectors.lazy import lazy_attributes
from st_connectors.plugin import Plugin
from st_connectors.schema import FusionMethod, Metric
from st_connectors.sizing import DenseLayout
from st_connectors.store import Capabilities, Precision

if TYPE_CHECKING:
    from st_connectors.opensearch.conversions import (
        filter_to_opensearch,
        knn_query,
        mapping,
        neural_sparse_query,
        rank_features_query,
        seismic_query,
    )

__all__ = [
    "PLUGIN",
    "filter_to_opensearch",
    "knn_query",
    "mapping",
    "neural_sparse_query",
    "rank_features_query",
    "seismic_query",
]

CAPABILITIES = Capabilities(
    metrics=frozenset(Metric),
    sparse=True,
    text=True,
    optional_vectors=True,
    # On one shard, without weights; see docs/decisions/0009-opensearch-fuses-on-one-shard.md.
    fusion=frozenset({FusionMethod.RRF}),
    max_fused_legs=5,  # a hybrid query takes no more
    filters=frozenset({"eq", "in", "range", "exists", "and", "or", "not"}),
    efforts=frozenset({"exact", "default", "candidates"}),
    persistent=True,
    partial_failure=True,
    max_batch=1000,
    # A server takes 100 MB (http.max_content_length); texts and filterable fields go twice, and payloads as escaped strings.
    max_bytes=15_000_000,
    max_dimension=16_000,
    max_limit=10_000,  # index.max_result_window, and the most neighbours of a knn query
    max_query_terms=None,  # indices.query.bool.max_clause_count, which each cluster sets for itself
    bulk_loading=frozenset(LOADING),
    fields={
        "dense": Precision(exact=True, score_rtol=1e-5),
        # Lucene keeps nine significant bits of a weight, cut off: 2 ** -8 at most.
        "sparse": Precision(score_rtol=0.004),
        "text": Precision(score_rtol=1e-5),
    },
)

SIZING = {
    "": replace(
        LUCENE,
        dense=tuple(
            DenseLayout(
                engine,
                4,
                "a graph over full vectors",
                "OpenSearch, k-NN memory estimation: 1.1 * (4 * dimension + 8 * m) bytes a vector, m = 16",
                graph=8 * 16,
                factor=1.1,
                options={"engine": engine},
            )
            for engine in ("lucene", "faiss")
        ),
        shard_source="Lucene indexes as in Elasticsearch, Size your shards; reciprocal rank fusion by the server needs one",
    )
}


_ENTRY = Entry(__name__, "opensearch", ("opensearchpy",), CAPABILITIES)
PLUGIN = Plugin(
    name="opensearch",
    extra="opensearch",
    variants={
        "": "a server over HTTP (opensearch://host:9200)",
        "https": "a server over TLS (opensearch+https://host:9200)",
    },
    capabilities=CAPABILITIES,
    connect=_ENTRY.connect,
    collections=_ENTRY.collections,
    adopt=_ENTRY.adopt,
    loading=_ENTRY.loading,
    sizing=SIZING,
)

__getattr__ = lazy_attributes(__name__, {name: "conversions" for name in __all__ if name != "PLUGIN"})
