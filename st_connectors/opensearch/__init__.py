"""OpenSearch 2.19 or newer: ``opensearch://host:9200``, with TLS ``opensearch+https://``.

Options of the address for a new collection, which are stored with the collection:

- ``sparse``: ``rank_features``, or ``seismic`` from 3.3.
- ``engine`` of dense vectors: ``lucene`` or ``faiss``, or with quantization ``lucene_int8`` or ``faiss_fp16``.
- ``analyzer`` of text fields: ``standard``, or another that the server has, such as ``english``, which reduces words to
  their stems.
- ``payload``: ``string``, or ``fields``, with which payloads are ordinary fields that other tools read.
- ``shards`` and ``replicas``.
- For ``sparse=seismic``, the parameters of its index: ``n_postings``, ``cluster_ratio``, ``summary_prune_ratio``,
  ``approximate_threshold``, ``quantization_ceiling_ingest``, ``quantization_ceiling_search``.

Options of each connection:

- ``vocabulary``: a ``tokenizer.json``, a ``vocab.txt``, a folder that contains one of them, or ``builtin:sparse``. Its
  tokens are the keys of sparse fields, so that every connection to the collection must set the same vocabulary.
- ``timeout``: the timeout of a request in seconds.
- ``ca``: with TLS, a file of PEM certificates that verify the certificate of the server.

Requests for ``seismic``, ``faiss`` and ``faiss_fp16`` follow the documentation of OpenSearch; they have not been tested
on a server.

The environment variables ``ST_OPENSEARCH_USERNAME`` (default ``admin``) and ``ST_OPENSEARCH_PASSWORD`` contain the
user and the password.

Conversions for your own index and client: :func:`rank_features_query`, :func:`neural_sparse_query`,
:func:`seismic_query`, :func:`knn_query`, :func:`filter_to_opensearch` and :func:`mapping`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from st_connectors._lucene.plugin import CAPABILITIES as LUCENE_CAPABILITIES
from st_connectors._lucene.plugin import SIZING, lucene_plugin
from st_connectors.lazy import lazy_attributes
from st_connectors.opensearch.server import CLAUSES, SPARE
from st_connectors.schema import FusionMethod, Quantization
from st_connectors.sizing import DenseLayout

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

CAPABILITIES = replace(
    LUCENE_CAPABILITIES,
    quantizations=frozenset({Quantization.NONE, Quantization.INT8}),
    # On one shard, without weights; see docs/decisions/0009-opensearch-fuses-on-one-shard.md.
    fusion=frozenset({FusionMethod.RRF}),
    max_fused_legs=5,  # the limit of a hybrid query
    max_dimension=16_000,
    # By default; the limit is indices.query.bool.max_clause_count, a setting of each cluster.
    max_query_terms=CLAUSES - SPARE,
    max_clauses=CLAUSES,
)

_LAYOUTS = tuple(
    DenseLayout(
        engine,
        width,
        cost,
        "OpenSearch, k-NN memory estimation: 1.1 * (width * dimension + 8 * m) bytes a vector, m = 16",
        graph=8 * 16,
        factor=1.1,
        quantization=quantization,
        options={"engine": engine},
    )
    for engine, width, quantization, cost in (
        ("lucene", 4, Quantization.NONE, "a graph over full vectors"),
        ("faiss", 4, Quantization.NONE, "a graph over full vectors"),
        ("faiss_fp16", 2, Quantization.NONE, "a graph over numbers of 16 bits"),
        ("lucene_int8", 1, Quantization.INT8, "a graph over numbers of 7 bits, by which hits are scored"),
    )
)

PLUGIN = lucene_plugin(
    "opensearch",
    ("opensearchpy",),
    CAPABILITIES,
    replace(
        SIZING,
        dense=_LAYOUTS,
        shard_source=(
            "Lucene indexes as in Elasticsearch, Size your shards; reciprocal rank fusion by the server needs one"
        ),
    ),
)

__getattr__ = lazy_attributes(__name__, {name: "conversions" for name in __all__ if name != "PLUGIN"})
