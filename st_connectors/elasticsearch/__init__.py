"""Elasticsearch 8.19 and 9.1 or newer: ``elasticsearch://host:9200``, with TLS ``elasticsearch+https://``.

Options of the address for a new collection, which are stored with the collection:

- ``sparse``: ``sparse_vector`` or ``rank_features``.
- ``dense_index``: ``hnsw`` or ``flat``, or with quantization ``int8_hnsw``, ``int4_hnsw``, ``bbq_hnsw``, ``int8_flat``,
  ``int4_flat`` or ``bbq_flat``.
- ``analyzer`` of text fields: ``standard``, or another that the server has, such as ``english``, which reduces words to
  their stems.
- ``payload``: ``string``, or ``fields``, with which payloads are ordinary fields that other tools read.
- ``shards`` and ``replicas``.

Options of each connection:

- ``vocabulary``: a ``tokenizer.json``, a ``vocab.txt``, a folder that contains one of them, or ``builtin:sparse``. Its
  tokens are the keys of sparse fields, so that every connection to the collection must set the same vocabulary.
- ``fusion``: ``client`` (default), or ``native``. With ``native`` the server fuses by its ``rrf`` retriever if its
  licence (Enterprise or trial) includes the retriever and the request does not ask for leg ranks; otherwise the legs
  are sent in one ``_msearch`` and fused in the client. The retriever follows the documentation of Elasticsearch; it has
  not been tested on a server.
- ``timeout``: the timeout of a request in seconds.
- ``ca``: with TLS, a file of PEM certificates that verify the certificate of the server.

The environment variable ``ST_ELASTICSEARCH_API_KEY`` contains the API key; or ``ST_ELASTICSEARCH_USERNAME`` (default
``elastic``) and ``ST_ELASTICSEARCH_PASSWORD`` contain the user and the password.

Conversions for your own index and client: :func:`sparse_vector_query`, :func:`rank_features_query`,
:func:`rrf_retriever`, :func:`linear_retriever`, :func:`filter_to_elasticsearch` and :func:`mapping`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from st_connectors._lucene.plugin import CAPABILITIES as LUCENE_CAPABILITIES
from st_connectors._lucene.plugin import SIZING, lucene_plugin
from st_connectors.lazy import lazy_attributes
from st_connectors.schema import FusionMethod, Quantization
from st_connectors.sizing import DenseLayout

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

CAPABILITIES = replace(
    LUCENE_CAPABILITIES,
    quantizations=frozenset(Quantization),
    # Requires fusion=native and a licence that includes it. The retriever `linear` is not used: if all hits of a query
    # have equal scores, its minmax normaliser keeps the scores, whereas st_connectors.fusion sets them to 1.
    fusion=frozenset({FusionMethod.RRF, FusionMethod.RRF_WEIGHTED}),
    max_dimension=4096,
    max_query_terms=1024,  # the minimum of max_clause_count since 8.1
)

_TUNING = "Elasticsearch, Tune approximate kNN search"
_GRAPH = 64  # 4 bytes for each of m = 16 neighbours, according to _TUNING
_EVERY = "compares with every vector, so that time grows with the records"
_SHORT = "the full vectors stay on disk and order the candidates again"


def _layouts() -> tuple[DenseLayout, ...]:
    """Return the layouts with a graph from the most exact to the smallest, then those without a graph."""
    int4_even, bbq_least = 2, 64  # the documentation of dense_vector
    corrections = 16  # bytes that 9.5.3 stores with each vector; the documentation says 4
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


PLUGIN = lucene_plugin(
    "elasticsearch",
    ("elasticsearch", "elastic_transport"),
    CAPABILITIES,
    replace(SIZING, dense=_layouts()),
    secrets=("API_KEY", "USERNAME", "PASSWORD"),
)

__getattr__ = lazy_attributes(__name__, {name: "conversions" for name in __all__ if name != "PLUGIN"})
