"""Conversions for your own index and client: mappings, queries and filters as dictionaries, without the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from st_connectors._lucene.conversions import filter_to_query, mapping_body, rank_features_query
from st_connectors._lucene.keys import Weights, weights_by_key
from st_connectors._lucene.layout import Body
from st_connectors.elasticsearch import wire
from st_connectors.elasticsearch.wire import rrf_retriever
from st_connectors.filters import Filter
from st_connectors.schema import Field, FilterKind, Schema

__all__ = [
    "filter_to_elasticsearch",
    "linear_retriever",
    "mapping",
    "rank_features_query",
    "rrf_retriever",
    "sparse_vector_query",
]


def sparse_vector_query(field: str, weights: Weights) -> Body:
    """Return a query that scores by the inner product with a field of type ``sparse_vector``.

    ``client.search(query=sparse_vector_query("splade", vector))`` runs the query. Token pruning, the default since
    Elasticsearch 8.19 and 9.1, is off, so that the score is the complete inner product. Weights that are zero, negative
    or not finite are omitted. Indices become decimal digits.
    """
    return wire.sparse_vector_query(field, weights_by_key(weights))


def linear_retriever(queries: Sequence[Body], weights: Sequence[float], *, depth: int = 100) -> Body:
    """Return a retriever that fuses several queries by the weighted sum of their scores, each scaled to [0, 1].

    ``client.search(retriever=linear_retriever([dense, sparse], [0.25, 0.75]))`` runs the search. It requires
    Elasticsearch 8.18 or newer with an Enterprise or trial licence; each query contributes its best ``depth`` hits. It
    has not been tested on a server. According to the source of Elasticsearch 9 it differs from
    :func:`st_connectors.fusion.weighted` in two points: if all hits of a query have equal scores, they keep their
    scores instead of 1; and the scores are those of Elasticsearch, which maps distances and products to positive
    numbers. Raises ValueError unless there are as many weights as queries.
    """
    if len(weights) != len(queries):
        raise ValueError(f"expected one weight for each of {len(queries)} queries, got {len(weights)} weights")
    legs = [
        {"retriever": {"standard": {"query": query}}, "weight": weight, "normalizer": "minmax"}
        for query, weight in zip(queries, weights, strict=True)
    ]
    return {"linear": {"retrievers": legs, "rank_window_size": depth}}


def mapping(
    fields: Mapping[str, Field],
    *,
    sparse: str = "sparse_vector",
    dense_index: str = "hnsw",
    analyzer: str = "standard",
) -> Body:
    """Return a mapping for fields, by field name.

    ``client.indices.create(index="books", mappings=mapping({"splade": SparseField()}))`` uses the mapping. ``sparse``
    is ``sparse_vector`` or ``rank_features``; ``dense_index`` is ``hnsw``, ``flat``, ``int8_hnsw``, ``int4_hnsw``,
    ``bbq_hnsw``, ``int8_flat``, ``int4_flat`` or ``bbq_flat``. ``analyzer`` is that of text fields. Raises ValueError
    for other values.
    """
    form = wire.form_for(Schema("index", fields), sparse=sparse, dense_index=dense_index, analyzer=analyzer)
    return mapping_body(fields, wire.vector_properties(fields, form), form.text)


def filter_to_elasticsearch(where: Filter, filterable: Mapping[str, FilterKind]) -> Body:
    """Return a filter as a query for filter context.

    Field names are paths of the index, and ``filterable`` maps them to their kinds. Raises KeyError for a field without
    a kind.
    """
    return filter_to_query(where, filterable)
