"""Conversions for your own index and client: mappings, queries and filters as dictionaries, without the client."""

from __future__ import annotations

from collections.abc import Mapping

from st_connectors._lucene.conversions import filter_to_query, mapping_body, rank_features_query
from st_connectors._lucene.keys import Weights, weights_by_key
from st_connectors._lucene.layout import Body
from st_connectors.filters import Filter
from st_connectors.opensearch import wire
from st_connectors.opensearch.wire import knn_query
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
    """Return a query that scores by the inner product with a ``rank_features`` field, for the plugin neural-search.

    ``client.search(index="books", body={"query": neural_sparse_query("splade", vector)})`` runs the query. The plugin
    rejects weights above 64: if there are any, all weights are divided by a power of two, and the query is boosted by
    it, so that the score is still the inner product. Weights that are zero, negative or not finite are omitted. Indices
    become decimal digits.
    """
    return wire.neural_sparse_query(field, weights_by_key(weights))


def seismic_query(
    field: str,
    weights: Weights,
    k: int = 10,
    *,
    top_n: int | None = None,
    heap_factor: float = 1.0,
    where: Body | None = None,
) -> Body:
    """Return a query for the ``k`` best documents by a SEISMIC field (``sparse_vector``, OpenSearch 3.3 or newer).

    Only documents that match the query ``where`` are compared. All tokens count, unless ``top_n`` limits them to those
    with the largest weights; a larger ``heap_factor`` visits more clusters. Raises ValueError for a key that is not an
    index below 32,768, because SEISMIC maps larger indices onto smaller ones. This query has not been tested on a
    server.
    """
    by_key = weights_by_key(weights)
    for key in by_key:
        if not key.isdecimal() or int(key) >= wire.SEISMIC_TERMS:
            raise ValueError(f"the keys of SEISMIC must be indices below {wire.SEISMIC_TERMS}, not {key!r}")
    return wire.seismic_query(field, by_key, k, where, top_n=top_n, heap_factor=heap_factor)


def mapping(
    fields: Mapping[str, Field],
    *,
    sparse: str = "rank_features",
    engine: str = "lucene",
    seismic: Mapping[str, float] | None = None,
    analyzer: str = "standard",
) -> Body:
    """Return a mapping for fields, by field name.

    ``client.indices.create("books", body={"mappings": mapping({"splade": SparseField()})})`` uses the mapping.
    ``sparse`` is ``rank_features`` or ``seismic``; ``engine`` is ``lucene`` or ``faiss``; ``seismic`` contains the
    parameters of SEISMIC indexes, such as ``{"n_postings": 300}``. Dense fields require the setting ``index.knn``,
    SEISMIC fields the setting ``index.sparse``. ``analyzer`` is that of text fields. Raises ValueError
    for other values.
    """
    form = wire.form_for(Schema("index", fields), sparse=sparse, engine=engine, analyzer=analyzer)
    parameters = wire.seismic_parameters({name: str(value) for name, value in (seismic or {}).items()})
    return mapping_body(fields, wire.vector_properties(fields, form, parameters), form.text)


def filter_to_opensearch(where: Filter, filterable: Mapping[str, FilterKind]) -> Body:
    """Return a filter as a query for filter context.

    Field names are paths of the index, and ``filterable`` maps them to their kinds. Raises KeyError for a field without
    a kind.
    """
    return filter_to_query(where, filterable)
