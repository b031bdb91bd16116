"""For people with their own index and client: mappings, queries and filters as plain dictionaries, usable alone and without the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from st_connectors._lucene import queries
from st_connectors._lucene.filters import filter_query
from st_connectors._lucene.forms import mapping_body
from st_connectors._lucene.keys import Weights, tokens
from st_connectors._lucene.layout import Body, Plain
from st_connectors._lucene.names import feature_key
from st_connectors.elasticsearch import wire
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
    """The inner product with a field of type ``sparse_vector``: ``client.search(query=sparse_vector_query("splade", vector))``.

    Token pruning, which Elasticsearch does by default since 8.19 and 9.1, is off, so that the score is the whole inner product. Weights that
    are zero, negative or not finite are left out. Indices become keys as decimal digits.
    """
    return wire.sparse_vector_query(field, tokens(weights))


def rank_features_query(field: str, weights: Weights) -> Body:
    """The inner product with a field of type ``rank_features``, which each need one clause.

    ``linear`` and not the default ``saturation``, which ranks by something else: under a weight of 2 the values 1, 2 and 4 give 0.67, 1.0 and 1.33
    where the inner product is 2, 4 and 8, and of the exact ten nearest among 5,000 random vectors it finds three. Dots in tokens are written
    ``%2E`` and ``%`` as ``%25``, as rank features take no dots; write the keys of documents in the same way.
    """
    return queries.rank_features_query(field, {feature_key(token): weight for token, weight in tokens(weights).items()})


def rrf_retriever(
    queries: Sequence[Body], *, k: int = 60, weights: Sequence[float] | None = None, depth: int = 100
) -> Body:
    """Queries fused by reciprocal ranks: ``client.search(retriever=rrf_retriever([sparse_vector_query("splade", vector), other]))``.

    Needs an Enterprise or trial licence, with ``weights``, one a query, Elasticsearch 9.2; each query gives its best ``depth``, and there must be two or
    more. Not verified on an engine. Without the licence fuse with ``st_connectors.fusion``. Raises ValueError for weights of another number.
    """
    return wire.rrf_retriever(queries, k=k, weights=weights, depth=depth)


def linear_retriever(queries: Sequence[Body], weights: Sequence[float], *, depth: int = 100) -> Body:
    """The weighted sum of scores brought to [0, 1] query by query: ``client.search(retriever=linear_retriever([dense, sparse], [0.25, 0.75]))``.

    Needs Elasticsearch 8.18 or newer with an Enterprise or trial licence; each query gives its best ``depth``. Not verified on an engine. By the source of
    Elasticsearch 9 it differs from :func:`st_connectors.fusion.weighted` in two things: where all hits of a query score the same, or it has but one, they
    keep their scores, which the reference makes 1; and scores are those of Elasticsearch, in which distances and products are folded.
    Raises ValueError for weights of another number.
    """
    if len(weights) != len(queries):
        raise ValueError(f"{len(weights)} weights for {len(queries)} queries: give one weight per query")
    legs = [
        {"retriever": {"standard": {"query": query}}, "weight": weight, "normalizer": "minmax"}
        for query, weight in zip(queries, weights, strict=True)
    ]
    return {"linear": {"retrievers": legs, "rank_window_size": depth}}


def mapping(fields: Mapping[str, Field], *, sparse: str = "sparse_vector", dense_index: str = "hnsw") -> Body:
    """A mapping for fields of these names: ``client.indices.create(index="books", mappings=mapping({"splade": SparseField()}))``.

    ``sparse`` is ``sparse_vector`` or ``rank_features``, ``dense_index`` one of ``hnsw``, ``flat``, ``int8_hnsw``, ``int4_hnsw``, ``bbq_hnsw``, ``int8_flat``,
    ``int4_flat`` and ``bbq_flat``. Raises ValueError for others.
    """
    form = wire.form_for(Schema("index", fields), sparse=sparse, dense_index=dense_index)
    return mapping_body(fields, wire.vector_properties(fields, form))


def filter_to_elasticsearch(where: Filter, filterable: Mapping[str, FilterKind]) -> Body:
    """A filter as a query for filter context; field names are the index's own paths, ``filterable`` says of what kind each is.

    Raises KeyError for a field without a kind.
    """
    return filter_query(where, Plain(Schema("index", {}, filterable)))
