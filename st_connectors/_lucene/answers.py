"""Answers to reads, which both engines give in the same form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from st_connectors._lucene import faults
from st_connectors._lucene.bulk import ItemError
from st_connectors._lucene.layout import Body, Layout
from st_connectors._lucene.queries import hits
from st_connectors.errors import Unavailable
from st_connectors.schema import Schema
from st_connectors.store import Hit, Parts, Record, SearchRequest

__all__ = ["ITEMS", "KEEP_ALIVE", "check_shards", "docs", "pages", "records", "shards_in"]

KEEP_ALIVE = "5m"
"""How long the server keeps a scan's place between two pages."""
ITEMS = "errors,items.*.status,items.*.error"
"""``filter_path`` of a bulk request."""


def docs(layout: Layout, ids: Sequence[str], parts: Parts) -> list[Body]:
    """The documents that a multi-get asks for."""
    selector = layout.selector(parts)
    return [{"_id": each, "_source": selector} for each in ids]


def records(layout: Layout, answer: Mapping[str, Any], parts: Parts, error_of: ItemError) -> list[Record]:
    """The records of a multi-get, less those that are not there."""
    found = []
    for each in answer["docs"]:
        if "error" in each:
            raise error_of(404 if faults.is_missing(each["error"]) else 500, each["error"])
        if each["found"]:
            found.append(layout.from_source(each["_id"], each.get("_source"), parts))
    return found


def pages(
    schema: Schema,
    layout: Layout,
    requests: Sequence[SearchRequest],
    answer: Mapping[str, Any],
    error_of: ItemError,
) -> list[list[Hit]]:
    """The hits of a multi-search, request by request; raises the first error among them."""
    found = []
    for request, each in zip(requests, answer["responses"], strict=True):
        if "error" in each:
            raise error_of(each["status"], each["error"])
        found.append(hits(schema, layout, request, each["hits"]["hits"]))
    return found


def check_shards(answer: Mapping[str, Any], *, store: str, operation: str) -> None:
    """Raise ``Unavailable`` where not all shards took part in an answer."""
    shards = answer["_shards"]
    if shards["failed"]:
        failures = shards.get("failures") or [{}]
        told = f"not all shards answered: {faults.reason(failures[0].get('reason'))}"
        raise Unavailable(told, store=store, operation=operation)


def shards_in(settings: object) -> int | None:
    """How many shards an answer of ``_settings`` tells of, over all indices; None where it tells of none."""
    counts: list[int] = []
    for each in settings.values() if isinstance(settings, Mapping) else ():
        found: Any = each
        for step in ("settings", "index", "number_of_shards"):
            found = found.get(step) if isinstance(found, Mapping) else None
        counts += [] if found is None else [int(found)]
    return sum(counts) or None
