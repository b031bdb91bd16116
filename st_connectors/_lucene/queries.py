"""Legs that both engines have, and the body around any leg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from st_connectors._lucene.filters import EVERYTHING, NOTHING, filter_query
from st_connectors._lucene.keys import Keys
from st_connectors._lucene.layout import Body, Layout
from st_connectors._lucene.scores import unfolded
from st_connectors.filters import Filter
from st_connectors.schema import DenseField, Metric, Schema
from st_connectors.store import Fuse, Hit, Near, Parts, SearchRequest
from st_core.vectors import SparseVector

__all__ = ["filtered", "hits", "match_query", "rank_features_query", "search_body", "unknown_index", "where_query"]


def rank_features_query(path: str, weights: Mapping[str, float]) -> Body:
    """The inner product of ``weights`` with a field of type ``rank_features``, by its keys.

    ``linear`` because it alone is ``weight * feature``; the default, ``saturation``, is ``weight * feature / (feature + pivot)`` and ranks otherwise.
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
    """BM25 over the words of a text, any of which may match."""
    return {"match": {path: {"query": text, "operator": "or"}}}


def where_query(where: Filter | None, layout: Layout) -> Body:
    """A filter as a whole query."""
    return dict(EVERYTHING) if where is None else {"bool": {"filter": [filter_query(where, layout)]}}


def filtered(query: Body, where: Filter | None, layout: Layout) -> Body:
    """A scoring query among the documents that a filter lets through."""
    if where is None:
        return query
    return {"bool": {"must": [query], "filter": [filter_query(where, layout)]}}


def search_body(layout: Layout, request: SearchRequest, query: Body) -> Body:
    """A search for the request's page, in the order ``(-score, id)``; ``query`` is its leg with its filter.

    Scores are read from what hits are sorted by: to have them beside it as well, ``track_scores``, makes both engines run the query again for each hit.
    """
    return {
        "query": query,
        "from": request.offset,
        "size": request.limit,
        "sort": layout.order,
        "track_total_hits": False,
        "_source": layout.selector(request.parts),
    }


def unknown_index(keys: Keys, requests: Sequence[SearchRequest]) -> str | None:
    """Which index of a query the vocabulary lacks, in a sentence; None where it has all."""
    for request in requests:
        legs = request.rank.legs if isinstance(request.rank, Fuse) else (request.rank,)
        sparse = [
            (leg.field, leg.vector) for leg in legs if isinstance(leg, Near) if isinstance(leg.vector, SparseVector)
        ]
        told = next(filter(None, (keys.unknown(*each) for each in sparse)), None)
        if told is not None:
            return told
    return None


def hits(
    schema: Schema, layout: Layout, request: SearchRequest, found: Sequence[Mapping[str, Any]], scale: float = 1.0
) -> list[Hit]:
    """The hits of an answer, with scores of their plain meaning; ``scale`` multiplies those of sparse legs (where a query's weights were divided by it)."""
    metric = _metric(schema, request)
    made = []
    for each in found:
        record = layout.from_source(each["_id"], each.get("_source"), request.parts)
        # What the server fuses, and what is sorted by its score alone, has the score beside it.
        given = float(each["sort"][0] if "sort" in each else each["_score"])
        score = given * scale if metric is None else unfolded(metric, given)
        payload = record.payload if Parts.PAYLOAD in request.parts else {}
        made.append(Hit(record.id, score, payload, record.vectors))
    return sorted(made, key=lambda hit: (-hit.score, hit.id))


def _metric(schema: Schema, request: SearchRequest) -> Metric | None:
    """The metric of a dense leg."""
    rank = request.rank
    if not isinstance(rank, Near):
        return None
    field = schema.fields[rank.field]
    return field.metric if isinstance(field, DenseField) else None
