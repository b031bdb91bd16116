"""Public conversions that Elasticsearch and OpenSearch share, for callers with their own index and client."""

from __future__ import annotations

from collections.abc import Mapping

from st_connectors._lucene import queries
from st_connectors._lucene.filters import filter_query
from st_connectors._lucene.keys import Weights, weights_by_key
from st_connectors._lucene.layout import AdoptedLayout, Body
from st_connectors._lucene.names import feature_key
from st_connectors.filters import Filter
from st_connectors.schema import Field, FilterKind, Schema, TextField

__all__ = ["filter_to_query", "mapping_body", "rank_features_query"]


def rank_features_query(field: str, weights: Weights) -> Body:
    """Return a query that scores by the inner product with a ``rank_features`` field, with one clause for each weight.

    The clauses use the function ``linear``, because the default, ``saturation``, ranks differently: for the features 1,
    2 and 4 and a weight of 2 it scores 0.67, 1.0 and 1.33, whereas the inner product is 2, 4 and 8. Weights that are
    zero, negative or not finite are omitted. A key of a rank feature cannot contain dots, so that in tokens ``.``
    becomes ``%2E`` and ``%`` becomes ``%25``; your documents must use the same keys.
    """
    by_key = {feature_key(token): weight for token, weight in weights_by_key(weights).items()}
    return queries.rank_features_query(field, by_key)


def filter_to_query(where: Filter, filterable: Mapping[str, FilterKind]) -> Body:
    """Return a filter as a query for filter context; field names are paths of the index."""
    return filter_query(where, AdoptedLayout(Schema("index", {}, filterable)))


def mapping_body(fields: Mapping[str, Field], vectors: Mapping[str, Body], analysers: Mapping[str, str]) -> Body:
    """Return a mapping of vector and text fields without the metadata of this package.

    ``vectors`` contains the properties of vector fields by field name, ``analysers`` the analysers of text fields.
    Others use the server's default, which is the standard analyser.
    """
    chosen = {name: {"analyzer": analyser} for name, analyser in analysers.items()}
    texts = {
        name: {"type": "text", **chosen.get(name, {})} for name, spec in fields.items() if isinstance(spec, TextField)
    }
    return {"properties": {**vectors, **texts}}
