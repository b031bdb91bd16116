"""For people with their own index and client: mappings, queries and filters as plain dictionaries, usable alone and without the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from st_connectors._lucene import queries
from st_connectors._lucene.filters import filter_query
from st_connectors._lucene.forms import mapping_body
from st_connectors._lucene.keys import Weights, tokens
from st_connectors._lucene.layout import Body, Plain
from st_connectors._lucene.names import feature_key
from st_connectors.filters import Filter
from st_connectors.opensearch import wire
from st_connectors.schema import Field, FilterKind, Schema

__all__ = [
    "filter_to_opensearch",
    "knn_query",
    "mapping",
    "neural_sparse_query",
    "rank_features_query",
    "seismic_query",
]


def neural_sparse_query(field: str, weights: Weights) -> Body:
    """The inner product with a field of type ``rank_features``.

    ``client.search(index="books", body={"query": neural_sparse_query("splade", vector)})``. Needs the plugin neural-search.
    It takes no weight over 64; where there is one, all are divided by a power of two and the query is boosted by it, so that the score is still the
    inner product. Weights that are zero, negative or not finite are left out. Indices become keys as decimal digits.
    """
    return wire.neural_sparse_query(field, tokens(weights))


def rank_features_query(field: str, weights: Weights) -> Body:
    """The same score as ``neural_sparse_query`` without the plugin, one clause a token.

    ``linear`` and not the default ``saturation``, which ranks by something else: on the vectors 1, 2 and 4 under a weight of 2 it gives 0.67, 1.0 and
    1.33 where the inner product is 2, 4 and 8. A ``rank_feature`` query finds no key with a dot: in tokens they are written ``%2E``, and
    ``%`` as ``%25``; write the keys of documents in the same way.
    """
    return queries.rank_features_query(field, {feature_key(token): weight for token, weight in tokens(weights).items()})


def knn_query(
    field: str, vector: Sequence[float] | Any, k: int = 10, *, candidates: int | None = 100, where: Body | None = None
) -> Body:
    """The ``k`` nearest to ``vector`` (float32 [dimension]) by the graph of a ``knn_vector`` field, among those that the query ``where`` lets through.

    ``candidates`` is ``ef_search``, for the engines lucene and faiss; as many as ``k``, the server's own choice with lucene, miss about one in ten.
    More than ``k`` may be found with lucene: cut by the search's ``size``.
    """
    return wire.knn_query(field, vector, k, candidates, where)


def seismic_query(
    field: str,
    weights: Weights,
    k: int = 10,
    *,
    top_n: int | None = None,
    heap_factor: float = 1.0,
    where: Body | None = None,
) -> Body:
    """The ``k`` best by a SEISMIC field (``sparse_vector``, OpenSearch 3.3 or newer), among those that the query ``where`` lets through; not run on an engine.

    All tokens count unless ``top_n`` says how many of the heaviest; a larger ``heap_factor`` looks at more clusters. Raises ValueError for an index
    from 32,768 on or a key that is none, since SEISMIC folds the first onto others and refuses the second.
    """
    kept = tokens(weights)
    for key in kept:
        if not key.isdecimal() or int(key) >= wire.SEISMIC_TERMS:
            raise ValueError(f"SEISMIC takes indices below {wire.SEISMIC_TERMS} as keys, and {key!r} is none")
    return wire.seismic_query(field, kept, k, where, top_n=top_n, heap_factor=heap_factor)


def mapping(
    fields: Mapping[str, Field],
    *,
    sparse: str = "rank_features",
    engine: str = "lucene",
    seismic: Mapping[str, float] | None = None,
) -> Body:
    """A mapping for fields of these names.

    ``client.indices.create("books", body={"mappings": mapping({"splade": SparseField()})})``. ``sparse`` is ``rank_features`` or ``seismic``,
    ``engine`` is ``lucene`` or ``faiss``, ``seismic`` the parameters of SEISMIC's index, such as ``{"n_postings": 300}``. Dense fields need the setting
    ``index.knn``, seismic ones ``index.sparse``. Raises ValueError for others.
    """
    form = wire.form_for(Schema("index", fields), sparse=sparse, engine=engine)
    return mapping_body(
        fields,
        wire.vector_properties(fields, form, wire.seismic_parameters({k: str(v) for k, v in (seismic or {}).items()})),
    )


def filter_to_opensearch(where: Filter, filterable: Mapping[str, FilterKind]) -> Body:
    """A filter as a query for filter context; field names are the index's own paths, ``filterable`` says of what kind each is.

    Raises KeyError for a field without a kind.
    """
    return filter_query(where, Plain(Schema("index", {}, filterable)))
