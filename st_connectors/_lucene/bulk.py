"""Build the lines of bulk requests, and read the result of each item."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from st_connectors._lucene.encoding import encode_json
from st_connectors._lucene.layout import Body, Layout
from st_connectors._lucene.smile import encode_smile
from st_connectors.errors import NotFound, Refused, StoreError
from st_connectors.store import Record, Rejected

__all__ = [
    "ITEMS",
    "ItemError",
    "delete_lines",
    "is_about_media_type",
    "raise_for_deletions",
    "read_rejections",
    "upsert_documents",
    "upsert_lines",
    "upsert_valid",
]

ItemError = Callable[[int, Any], StoreError]
"""A function from the status and the error body of an item to a store error."""
ITEMS = "errors,items.*.status,items.*.error"
"""The ``filter_path`` of bulk requests."""
FAILED = 300
"""The lowest status of an item that was not executed."""
ABSENT = 404
"""The status of a deletion of an id that is not stored."""
_MEDIA_TYPE = re.compile("(media|content)[ _-]type", re.IGNORECASE)


def upsert_lines(layout: Layout, records: Sequence[Record]) -> list[bytes]:
    """Return two lines for each record, which index its complete document."""
    lines = ((encode_json({"index": {"_id": record.id}}), encode_json(layout.to_source(record))) for record in records)
    return list(chain.from_iterable(lines))


def upsert_documents(layout: Layout, records: Sequence[Record]) -> bytes:
    """Return the same as ``upsert_lines`` in SMILE, which takes both sides less time."""
    pairs = (({"index": {"_id": record.id}}, layout.to_source(record)) for record in records)
    return encode_smile(chain.from_iterable(pairs))


def is_about_media_type(error: StoreError) -> bool:
    """Return whether a server or a proxy refused a request because it does not read its media type."""
    return error.status in (406, 415) or (error.status == 400 and bool(_MEDIA_TYPE.search(error.message)))


def delete_lines(ids: Sequence[str]) -> list[Body]:
    """Return one line for each distinct id."""
    return [{"delete": {"_id": record_id}} for record_id in dict.fromkeys(ids)]


def upsert_valid(
    records: Sequence[Record],
    problem_of: Callable[[Record], str | None],
    upsert: Callable[[Sequence[Record]], list[Rejected]],
    *,
    store: str,
) -> list[Rejected]:
    """Upsert the records for which ``problem_of`` returns no problem.

    Returns the rejected records in the order of ``records``: those with a problem, which are not sent, and those that
    the server rejects. ``upsert`` sends records and returns the rejected ones; ``store`` is used in messages.
    """
    problems = [problem_of(record) for record in records]
    valid = [position for position, problem in enumerate(problems) if problem is None]
    rejected = [
        Rejected(position, records[position].id, Refused(problem, store=store, operation="upsert"))
        for position, problem in enumerate(problems)
        if problem is not None
    ]
    if valid:
        rejections = upsert([records[position] for position in valid])
        rejected += [Rejected(valid[each.position], each.id, each.error) for each in rejections]
    return sorted(rejected, key=lambda item: item.position)


def read_rejections(records: Sequence[Record], answer: Mapping[str, Any], error_of: ItemError) -> list[Rejected]:
    """Return the rejected records in the order of ``records``; raise ``NotFound`` if the collection does not exist."""
    rejected = []
    for position, (record, item) in enumerate(zip(records, answer["items"], strict=True)):
        result = item["index"]
        if "error" in result or result["status"] >= FAILED:
            error = error_of(result["status"], result.get("error"))
            if isinstance(error, NotFound):
                raise error
            rejected.append(Rejected(position, record.id, error))
    return rejected


def raise_for_deletions(count: int, answer: Mapping[str, Any], error_of: ItemError) -> None:
    """Raise the first error of a request that deletes ``count`` documents; an absent id is not an error."""
    for _, item in zip(range(count), answer["items"], strict=True):
        result = item["delete"]
        if "error" in result or (result["status"] >= FAILED and result["status"] != ABSENT):
            raise error_of(result["status"], result.get("error"))
