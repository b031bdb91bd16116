"""Convert responses, which have the same form on both engines, to records, hits and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from st_connectors._lucene.bulk import ItemError
from st_connectors._lucene.faults import is_missing_index, quote_reason
from st_connectors._lucene.layout import Layout
from st_connectors._lucene.names import own_name
from st_connectors._lucene.scores import unfold_score
from st_connectors.errors import Unavailable
from st_connectors.plugin import Description
from st_connectors.schema import DenseField, Metric, Schema
from st_connectors.store import Hit, Near, Parts, Record, SearchRequest

__all__ = ["check_shards", "count_shards", "read_hits", "read_pages", "read_records", "to_description"]


def read_records(layout: Layout, answer: Mapping[str, Any], parts: Parts, error_of: ItemError) -> list[Record]:
    """Return the records of a multi-get response; absent ids are skipped.

    ``error_of`` converts the error of a document to the error to raise.
    """
    records = []
    for document in answer["docs"]:
        if "error" in document:
            raise error_of(404 if is_missing_index(document["error"]) else 500, document["error"])
        if document["found"]:
            records.append(layout.from_source(document["_id"], document.get("_source"), parts))
    return records


def read_pages(
    schema: Schema,
    layout: Layout,
    requests: Sequence[SearchRequest],
    answer: Mapping[str, Any],
    error_of: ItemError,
) -> list[list[Hit]]:
    """Return the hits of each request of a multi-search, in order; raise the first error among the responses."""
    pages = []
    for request, response in zip(requests, answer["responses"], strict=True):
        if "error" in response:
            raise error_of(response["status"], response["error"])
        pages.append(read_hits(schema, layout, request, response["hits"]["hits"]))
    return pages


def read_hits(
    schema: Schema, layout: Layout, request: SearchRequest, documents: Sequence[Mapping[str, Any]]
) -> list[Hit]:
    """Return hits in the order ``(-score, id)``; scores of dense legs are converted to those of their metric."""
    metric = _metric_of(schema, request)
    hits = []
    for document in documents:
        record = layout.from_source(document["_id"], document.get("_source"), request.parts)
        # Hits that the server has fused, or sorted by score only, have no sort values.
        score = float(document["sort"][0] if "sort" in document else document["_score"])
        payload = record.payload if Parts.PAYLOAD in request.parts else {}
        hits.append(Hit(record.id, score if metric is None else unfold_score(metric, score), payload, record.vectors))
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def _metric_of(schema: Schema, request: SearchRequest) -> Metric | None:
    if not isinstance(request.rank, Near):
        return None
    field = schema.fields[request.rank.field]
    return field.metric if isinstance(field, DenseField) else None


def check_shards(answer: Mapping[str, Any], *, store: str, operation: str) -> None:
    """Raise ``Unavailable`` if a shard did not contribute to a response."""
    shards = answer["_shards"]
    if shards["failed"]:
        failures = shards.get("failures") or [{}]
        message = f"not all shards answered: {quote_reason(failures[0].get('reason'))}"
        raise Unavailable(message, store=store, operation=operation)


def count_shards(settings: object) -> int | None:
    """Return the number of shards of all indices in a response to ``_settings``; None if it contains none."""
    counts: list[int] = []
    for index in settings.values() if isinstance(settings, Mapping) else ():
        value: Any = index
        for step in ("settings", "index", "number_of_shards"):
            value = value.get(step) if isinstance(value, Mapping) else None
        counts += [] if value is None else [int(value)]
    return sum(counts) or None


def to_description(
    collection: str, aliases: Mapping[str, Any], statistics: Mapping[str, Any], settings: Mapping[str, Any]
) -> Description:
    """Return the description of a collection from the responses to ``_alias``, ``_stats/store`` and ``_settings``.

    ``collection`` is the name or alias in the requests, and the own name if one of the indices belongs to it.
    """
    owners = {own_name(index) for index in aliases}
    name = collection if collection in owners else " and ".join(sorted(owners))
    others = {alias for index in aliases.values() for alias in index["aliases"]} - {name}
    size = statistics.get("_all", {}).get("total", {}).get("store", {}).get("size_in_bytes")
    options = {index: dict(sorted(value["settings"].items())) for index, value in sorted(settings.items())}
    return Description(name, tuple(sorted(others)), size, {"indices": sorted(aliases), **options})
