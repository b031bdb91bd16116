"""HTTP statuses and error bodies as our errors. Messages are the server's own words, cut short, without the request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from st_connectors.errors import NotFound, Permanent, Refused, StoreError, Throttled, Unavailable

__all__ = ["from_status", "is_missing", "reason", "seconds"]

_LONGEST = 400
"""Characters of a server's message that are kept: enough to name the fault, too few to carry a batch."""
_MISSING = ("index_not_found_exception", "alias_not_found_exception", "aliases_not_found_exception")
_LATE = "search_context_missing_exception"


def from_status(  # noqa: PLR0911  # one return for each kind
    status: int, body: object, *, store: str, operation: str, key: str, retry_after: float | None = None
) -> StoreError:
    """The error for an HTTP status, of a whole answer or of one item; ``key`` is the environment variable that the store's key comes from."""
    told = f"the server answered {status}: {reason(body)}"
    names: Mapping[str, str] = {"store": store, "operation": operation}
    if _LATE in told:
        return Permanent(f"{told}; the scan rested longer than the server keeps its place: begin it again", **names)
    match status:
        case 404:
            missing = is_missing(body)
            return NotFound(f"{told}; create the collection first", **names) if missing else Permanent(told, **names)
        case 401 | 403:
            return Permanent(f"{told}; set {key} to a key that may do this", **names)
        case 429:
            return Throttled(told, store=store, operation=operation, retry_after=retry_after)
        case 408 | 500 | 502 | 503 | 504:
            return Unavailable(told, store=store, operation=operation, retry_after=retry_after)
        case 400 | 409 | 413 | 422:
            return Refused(told, **names)
        case _:
            return Permanent(told, **names)


def is_missing(body: object) -> bool:
    """Whether an error body says that there is no such index."""
    return any(kind in _types(body) for kind in _MISSING)


def _types(body: object) -> str:
    """The types of an error and of its root causes."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return str(error)
    causes = error.get("root_cause") or []
    return " ".join(str(each.get("type", "")) for each in (error, *causes) if isinstance(each, Mapping))


def reason(body: object) -> str:
    """What an error body says, in one line: the error, its first root cause, and the last of what it was caused by."""
    error: Any = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        text = error.decode("utf-8", "replace") if isinstance(error, bytes) else str(error or "")
        return " ".join(text.split())[:_LONGEST] or "(no message)"
    said = [_said(error)]
    roots = error.get("root_cause") or []
    last = error
    while isinstance(last.get("caused_by"), Mapping):
        last = last["caused_by"]
    said += [_said(each) for each in (*roots[:1], last) if isinstance(each, Mapping)]
    return " ".join("; because ".join(dict.fromkeys(said)).split())[:_LONGEST]


def _said(error: Mapping[str, Any]) -> str:
    return f"{error.get('type', 'error')}: {error.get('reason', '(no reason)')}"


def seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds; None where it is absent, a date, or no time that can be waited."""
    try:
        wish = float(header or "")
    except ValueError:
        return None
    return wish if math.isfinite(wish) and wish >= 0 else None
