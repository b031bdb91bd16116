"""Convert HTTP statuses, error bodies and connection failures to store errors.

Error messages quote the server's message, shortened, but never the request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from st_connectors._answers import is_cut_off
from st_connectors.errors import NotFound, Permanent, Refused, StoreError, Throttled, Unavailable

__all__ = [
    "error_from_status",
    "foreign_answer",
    "is_missing_index",
    "parse_seconds",
    "quote_reason",
    "unreachable",
    "wrong_product",
]

_LONGEST = 400
"""The maximum number of characters of a quoted message: enough to describe the error, too few to contain a batch."""
_MISSING = ("index_not_found_exception", "alias_not_found_exception", "aliases_not_found_exception")
_EXPIRED = "search_context_missing_exception"
_DISK_FULL = re.compile(r"/12/(disk usage exceeded flood-stage watermark|index read-only / allow delete)")
"""The block of an index on a full disk: status 429 in Elasticsearch 8 and OpenSearch 2, 403 in servers before."""
_PRESSURE = re.compile(r"(?:coordinating|primary)_operation_bytes=(\d+), max_\w+=(\d+)")
"""The size of an operation and the limit, in the error of Elasticsearch 9.5 and OpenSearch 2.19."""
_FREE_SPACE = (
    "the disk of the server is full: free space on it, and it accepts writes again; "
    "if the block was set by hand, remove index.blocks.read_only_allow_delete"
)
_WRITES_BLOCKED = "FORBIDDEN/8/index write (api)"
_TOO_LARGE = (
    "the request is larger than the server (http.max_content_length, indexing_pressure.memory.limit) or a proxy before "
    "it accepts: shorten the record, or raise that limit"
)
_TOO_MANY = "the query's terms and the filter's comparisons are too many together: shorten the query or the filter"


def error_from_status(  # noqa: PLR0911  # one return for each class
    status: int, body: object, *, store: str, operation: str, access: str, retry_after: float | None = None
) -> StoreError:
    """Return the store error for the HTTP status of a response, or of one item of a bulk response.

    ``access`` names the settings to change if the server denies access. ``retry_after`` is the wait in seconds that the
    server requested, or None.
    """
    message = f"the server answered {status}: {quote_reason(body).rstrip(';')}"
    if status == 429 and _exceeds_pressure(message):
        status = 413  # sent again, it would be too large again
    names: Mapping[str, Any] = {"store": store, "operation": operation, "status": status}
    if known := _explain(status, message):
        kind, advice = known
        return kind(f"{message}; {advice}", **names)
    match status:
        case 404 if is_missing_index(body):
            return NotFound(f"{message}; create the collection first", **names)
        case 401 | 403:
            return Permanent(f"{message}; set {access}", **names)
        case 429:
            return Throttled(message, retry_after=retry_after, **names)
        case 408 | 500 | 502 | 503 | 504:
            return Unavailable(message, retry_after=retry_after, **names)
        case 400 | 409 | 422:
            return Refused(message, **names)
        case _:
            return Permanent(message, **names)


def _exceeds_pressure(message: str) -> bool:
    """Return whether an operation alone needs more memory than the server has for all operations."""
    sizes = _PRESSURE.search(message)
    return sizes is not None and int(sizes[1]) > int(sizes[2])


def _explain(status: int, message: str) -> tuple[type[StoreError], str] | None:
    """Return the class of an error with a known cause, and what to do; None for any other error."""
    if status in (400, 500) and "too_many" in message:
        # The server counts the clauses of the rewritten query, and OpenSearch answers 500 if a search has too many.
        return Refused, _TOO_MANY
    if status == 413:
        return Refused, _TOO_LARGE
    if _EXPIRED in message:
        return Permanent, "the scan paused longer than the server keeps its place: start it again"
    if _DISK_FULL.search(message):
        return Unavailable, _FREE_SPACE
    if _WRITES_BLOCKED in message:
        return Permanent, "an alter by copy is running, or was interrupted: wait for it, or make the same alter again"
    return None


def unreachable(reason: str, *, is_tls: bool, store: str, operation: str) -> StoreError:
    """Return the error for a request that received no response; ``reason`` is the message of the client."""
    words = " ".join(reason.split())[:300]
    if is_tls:
        hint = "does the server speak TLS here, with a certificate that this machine trusts?"
        # A connection that ends is reset, or a server without TLS closed it.
        kind = Unavailable if "EOF" in words else Permanent
        return kind(f"TLS failed: {words}; {hint}", store=store, operation=operation)
    if "aborted" in words and not store.endswith("+https"):
        words = f"{words} (if it speaks TLS, write {store}+https://)"
    return Unavailable(f"the server cannot be reached: {words}", store=store, operation=operation)


def foreign_answer(product: str, reason: str, body: object, *, store: str, operation: str) -> StoreError:
    """Return the error for a successful response that is not from the product, or only its beginning.

    If the body was cut off, the server may have executed the request, which can be repeated: a temporary error.
    """
    if isinstance(body, str | bytes) and is_cut_off(body):
        message = "the answer was cut off; the server may have executed the request"
        return Unavailable(message, store=store, operation=operation)
    return wrong_product(product, reason, store=store, operation=operation)


def wrong_product(product: str, reason: str, *, store: str, operation: str) -> Permanent:
    """Return the error for a response that is not from the product; ``reason`` states how the response differs."""
    message = f"the answer is not from {product} ({reason}): is this the right address?"
    return Permanent(message, store=store, operation=operation)


def is_missing_index(body: object) -> bool:
    """Return whether an error body reports a missing index or alias."""
    return any(kind in _error_types(body) for kind in _MISSING)


def _error_types(body: object) -> str:
    """Return the types of an error and of its root causes, joined by spaces."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return str(error)
    causes = error.get("root_cause") or []
    return " ".join(str(each.get("type", "")) for each in (error, *causes) if isinstance(each, Mapping))


def quote_reason(body: object) -> str:
    """Return the messages of an error body in one line: the error, its first root cause and its innermost cause."""
    error: Any = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        text = error.decode("utf-8", "replace") if isinstance(error, bytes) else str(error or "")
        return " ".join(text.split())[:_LONGEST] or "(no message)"
    roots = error.get("root_cause") or []
    innermost = error
    while isinstance(innermost.get("caused_by"), Mapping):
        innermost = innermost["caused_by"]
    causes = [_quote_error(each) for each in (error, *roots[:1], innermost) if isinstance(each, Mapping)]
    return " ".join("; because ".join(dict.fromkeys(causes)).split())[:_LONGEST]


def _quote_error(error: Mapping[str, Any]) -> str:
    return f"{error.get('type', 'error')}: {error.get('reason', '(no reason)')}"


def parse_seconds(text: str | None) -> float | None:
    """Return the seconds in a text such as that of ``Retry-After``; None unless it is a finite number from 0."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
