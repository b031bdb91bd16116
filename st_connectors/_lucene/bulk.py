"""Bulk requests: their lines, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from st_connectors._lucene.encoding import encoded
from st_connectors._lucene.layout import Body, Layout
from st_connectors.errors import NotFound, Refused, StoreError
from st_connectors.store import Record, Rejected

__all__ = ["deletions", "raise_for_deletions", "rejections", "upserted", "writes"]

ItemError = Callable[[int, Any], StoreError]
"""Makes the error of one item from its status and its error body."""


def writes(layout: Layout, records: Sequence[Record]) -> list[bytes]:
    """Two lines for each record, which put it whole."""
    lines = ((encoded({"index": {"_id": record.id}}), encoded(layout.to_source(record))) for record in records)
    return list(chain.from_iterable(lines))


def upserted(
    records: Sequence[Record],
    problem: Callable[[Record], str | None],
    put: Callable[[Sequence[Record]], list[Rejected]],
    *,
    store: str,
) -> list[Rejected]:
    """Put the records in which there is no problem; those that are not sent, and those that the server rejects, by position."""
    told = [problem(record) for record in records]
    kept = [at for at, each in enumerate(told) if each is None]
    rejected = [
        Rejected(at, records[at].id, Refused(each, store=store, operation="upsert"))
        for at, each in enumerate(told)
        if each is not None
    ]
    if kept:
        rejected += [Rejected(kept[item.position], item.id, item.error) for item in put([records[at] for at in kept])]
    return sorted(rejected, key=lambda item: item.position)


def deletions(ids: Sequence[str]) -> list[Body]:
    """One line for each id."""
    return [{"delete": {"_id": record_id}} for record_id in dict.fromkeys(ids)]


def rejections(records: Sequence[Record], answer: Mapping[str, Any], error_of: ItemError) -> list[Rejected]:
    """The records that did not go in, by position; raises ``NotFound`` where there is no collection at all."""
    rejected = []
    for position, (record, item) in enumerate(zip(records, answer["items"], strict=True)):
        result = item["index"]
        if "error" in result:
            error = error_of(result["status"], result["error"])
            if isinstance(error, NotFound):
                raise error
            rejected.append(Rejected(position, record.id, error))
    return rejected


def raise_for_deletions(answer: Mapping[str, Any], error_of: ItemError) -> None:
    """Raise the first error of a request to delete; an id that is not there is none."""
    for item in answer["items"]:
        if "error" in item["delete"]:
            raise error_of(item["delete"]["status"], item["delete"]["error"])
