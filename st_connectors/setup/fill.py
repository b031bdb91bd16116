"""Copy the documents of another index through the pipelines of a set-up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from st_connectors._lucene.client import Connection
from st_connectors.errors import Refused, StoreError
from st_connectors.setup.filled import Filled

__all__ = ["by_reindex", "by_scan"]

_PAGE = 200
_KEEP = "5m"
_ATTEMPTS = 6
_WAIT_S = 0.5
_POLL_S = 0.5
_SHOWN = 5


def by_reindex(connection: Connection, source: str, target: str, wait: Callable[[float], None] = time.sleep) -> Filled:
    """Let the server copy; it stops at the first batch with a document that fails, and the documents before it stay."""
    body = {"source": {"index": source, "size": _PAGE}, "dest": {"index": target}}
    answer = connection.send("setup", "POST", "/_reindex", body, params={"wait_for_completion": "false"})
    while True:
        task = connection.send("setup", "GET", f"/_tasks/{quote(answer['task'])}")
        if task["completed"]:
            break
        wait(_POLL_S)
    if "error" in task:
        raise Refused(f"_reindex failed: {_reason(task['error'])}", store=connection.name, operation="setup")
    result = task["response"]
    reasons = [f"{each['id']}: {_reason(each['cause'])}" for each in result["failures"]]
    return Filled(result["created"] + result["updated"], len(reasons), tuple(reasons[:_SHOWN]))


def by_scan(connection: Connection, source: str, target: str, wait: Callable[[float], None] = time.sleep) -> Filled:
    """Read the documents and send them by ``_bulk``; those that fail are sent again, and in the end counted."""
    copied, refused = 0, 0
    reasons: list[str] = []
    for page in _pages(connection, source):
        failed = _send_page(connection, target, page, wait)
        copied += len(page) - len(failed)
        refused += len(failed)
        reasons += [f"{name}: {reason}" for name, reason in failed.items()][: _SHOWN - len(reasons)]
    connection.send("setup", "POST", f"/{target}/_refresh")
    return Filled(copied, refused, tuple(reasons))


def _pages(connection: Connection, source: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    body: dict[str, Any] = {"size": _PAGE, "sort": ["_doc"]}
    answer = connection.send("setup", "POST", f"/{source}/_search", body, params={"scroll": _KEEP})
    try:
        while answer["hits"]["hits"]:
            yield answer["hits"]["hits"]
            again = {"scroll": _KEEP, "scroll_id": answer["_scroll_id"]}
            answer = connection.send("setup", "POST", "/_search/scroll", again)
    finally:
        connection.send("setup", "DELETE", "/_search/scroll", {"scroll_id": answer["_scroll_id"]})


def _send_page(
    connection: Connection, target: str, page: Sequence[Mapping[str, Any]], wait: Callable[[float], None]
) -> dict[str, str]:
    """Send documents until none is left that can succeed later, and return the reasons of the others by id."""
    refused: dict[str, str] = {}
    left = list(page)
    for attempt in range(_ATTEMPTS):
        errors = _bulk(connection, target, left)
        refused |= {name: reason for name, (reason, can_succeed) in errors.items() if not can_succeed}
        left = [hit for hit in left if hit["_id"] in errors and hit["_id"] not in refused]
        if not left:
            return refused
        if attempt < _ATTEMPTS - 1:
            wait(_WAIT_S * 2**attempt)
    return refused | {hit["_id"]: errors[hit["_id"]][0] for hit in left}


def _bulk(connection: Connection, target: str, page: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, bool]]:
    """Send documents, and return the reason of each that failed, with whether it can succeed later.

    An encoder that is away fails a document with another status in each version of OpenSearch, so that only documents
    that the pipeline or the mapping cannot read are final.
    """
    lines: list[object] = []
    for hit in page:
        routing = {"routing": hit["_routing"]} if "_routing" in hit else {}
        lines += [{"index": {"_index": target, "_id": hit["_id"], **routing}}, hit["_source"]]
    try:
        answer = connection.send("setup", "POST", "/_bulk", lines=lines)
    except StoreError as error:
        return {hit["_id"]: (error.message, True) for hit in page}
    items = (item["index"] for item in answer["items"])
    return {item["_id"]: (_reason(item["error"]), _can_succeed(item)) for item in items if "error" in item}


_FINAL = ("mapper_parsing_exception", "illegal_argument_exception", "document_parsing_exception")


def _can_succeed(item: Mapping[str, Any]) -> bool:
    return not (item["status"] == 400 and item["error"].get("type") in _FINAL)


def _reason(error: Any) -> str:
    if isinstance(error, Mapping):
        return str(error.get("reason") or json.dumps(error))
    return str(error)
