"""Build search bodies: the legs that both engines share, and the lines of a multi-search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from st_connectors._lucene.filters import EVERYTHING, NOTHING, filter_query
from st_connectors._lucene.forms import Form
from st_connectors._lucene.keys import Keys
from st_connectors._lucene.layout import Body, Layout
from st_connectors.filters import Filter
from st_connectors.schema import Schema
from st_connectors.store import Fuse, Match, Near, Parts, SearchRequest, Vector, is_empty_vector
from st_core.vectors import SparseVector

__all__ = [
    "Collection",
    "Dialect",
    "ServerT",
    "filtered",
    "match_query",
    "rank_features_query",
    "scan_body",
    "search_lines",
    "sparse_legs",
    "to_floats",
    "unknown_index",
    "where_query",
]

ServerT = TypeVar("ServerT")
"""The type that describes a server of one engine."""


@dataclass(frozen=True, slots=True)
class Collection(Generic[ServerT]):
    """The properties of a collection and its server on which search bodies depend."""

    schema: Schema
    form: Form
    layout: Layout
    server: ServerT


@dataclass(frozen=True, slots=True)
class Dialect(Generic[ServerT]):
    """The functions that build the queries of one engine.

    ``sparse_leg`` and ``dense_leg`` return the query of a leg with its filter; ``sparse_leg`` receives the weights by
    key of a vector that is not empty. ``fused_body`` adds the fusion of several queries to a body that contains the
    page and ``_source``.
    """

    sparse_leg: Callable[[Collection[ServerT], str, dict[str, float], SearchRequest], Body]
    dense_leg: Callable[[Collection[ServerT], str, Vector, SearchRequest], Body]
    fused_body: Callable[[Fuse, list[Body], Body], Body]


def search_lines(
    dialect: Dialect[ServerT], collection: Collection[ServerT], requests: Sequence[SearchRequest]
) -> list[Body]:
    """Return a header and a body for each search; searches fail unless all shards respond."""
    lines: list[Body] = []
    for request in requests:
        header: Body = {"allow_partial_search_results": False}
        if isinstance(request.rank, Match):
            # With the default search type, each shard scores by the word frequencies of its own documents only.
            header["search_type"] = "dfs_query_then_fetch"
        lines += [header, _search_body(dialect, collection, request)]
    return lines


def _search_body(dialect: Dialect[ServerT], collection: Collection[ServerT], request: SearchRequest) -> Body:
    layout, rank = collection.layout, request.rank
    page = {"from": request.offset, "size": request.limit}
    rest = {"track_total_hits": False, "_source": layout.selector(request.parts)}
    if isinstance(rank, Fuse):
        # The server cannot sort fused hits; read_hits sorts equal scores by id.
        legs = [replace(request, rank=leg, limit=rank.depth, offset=0) for leg in rank.legs]
        return dialect.fused_body(rank, [leg_query(dialect, collection, leg) for leg in legs], {**page, **rest})
    # The score is read from the sort values: ``track_scores`` would make both engines run the query again for each hit.
    return {"query": leg_query(dialect, collection, request), **page, "sort": layout.order, **rest}


def leg_query(dialect: Dialect[ServerT], collection: Collection[ServerT], request: SearchRequest) -> Body:
    """Return the query of a request with a single leg, including its filter; an empty sparse vector matches nothing."""
    layout = collection.layout
    match request.rank:
        case Fuse():
            raise TypeError("a leg cannot be a fusion of legs")
        case Match(name, text):
            return filtered(match_query(layout.text(name), text), request.where, layout)
        case Near(name, SparseVector() as vector):
            if is_empty_vector(vector):
                return dict(NOTHING)
            return dialect.sparse_leg(collection, name, layout.keys.weights(name, vector), request)
        case Near(name, vector):
            return dialect.dense_leg(collection, name, vector, request)


def rank_features_query(path: str, weights: Mapping[str, float]) -> Body:
    """Return a query that scores by the inner product of weights by key with a ``rank_features`` field.

    The function ``linear`` scores ``weight * feature``; the default, ``saturation``, scores
    ``weight * feature / (feature + pivot)`` and ranks differently.
    """
    if not weights:
        return dict(NOTHING)
    return {
        "bool": {
            "should": [
                {"rank_feature": {"field": f"{path}.{key}", "boost": weight, "linear": {}}}
                for key, weight in weights.items()
            ]
        }
    }


def match_query(path: str, text: str) -> Body:
    """Return a BM25 query for the words of a text, at least one of which must match."""
    return {"match": {path: {"query": text, "operator": "or"}}}


def where_query(where: Filter | None, layout: Layout) -> Body:
    """Return a filter as a complete query."""
    return dict(EVERYTHING) if where is None else {"bool": {"filter": [filter_query(where, layout)]}}


def filtered(query: Body, where: Filter | None, layout: Layout) -> Body:
    """Return a scoring query restricted to the documents that pass a filter."""
    if where is None:
        return query
    return {"bool": {"must": [query], "filter": [filter_query(where, layout)]}}


def scan_body(layout: Layout, where: Filter | None, parts: Parts, batch: int, order: list[Body]) -> Body:
    """Return the body of one page of a scan, without its point in time."""
    return {
        "query": where_query(where, layout),
        "size": batch,
        "sort": order,
        "track_total_hits": False,
        "_source": layout.selector(parts),
    }


def sparse_legs(request: SearchRequest) -> list[tuple[str, SparseVector]]:
    """Return the field and the vector of each sparse leg of a request."""
    legs = request.rank.legs if isinstance(request.rank, Fuse) else (request.rank,)
    return [(leg.field, leg.vector) for leg in legs if isinstance(leg, Near) if isinstance(leg.vector, SparseVector)]


def unknown_index(keys: Keys, requests: Sequence[SearchRequest]) -> str | None:
    """Return a sentence about the first index of a query without a token in the vocabulary; None if all have one."""
    problems = (keys.unknown_index(*leg) for request in requests for leg in sparse_legs(request))
    return next(filter(None, problems), None)


def to_floats(vector: Any) -> list[float]:
    """Return a dense vector as Python floats with float32 values."""
    values: list[float] = np.asarray(vector, np.float32).tolist()
    return values
