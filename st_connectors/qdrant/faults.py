"""Drivers' errors to ours; pure, one function per way in. Messages are the server's own words, cut short, without the request."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any

from st_connectors.errors import NotFound, Permanent, Refused, StoreError, Throttled, Unavailable

__all__ = ["LOCKED", "from_client", "from_edge", "from_status"]

LONGEST = 300
"""Characters of a server's message that are kept: enough to name the fault, too few to carry a batch."""


def from_status(
    status: int, message: str, *, store: str, operation: str, retry_after: float | None = None, name: str = ""
) -> StoreError:
    """The error for an HTTP status that is not a success; ``name`` is what the server called it, over gRPC."""
    told = f"the server answered {name or status}: {message[:LONGEST]}"
    match status:
        case 404:
            return NotFound(told, store=store, operation=operation)
        case 401 | 403:
            return Permanent(
                f"{told}; set ST_QDRANT_API_KEY to a key that may do this", store=store, operation=operation
            )
        case 429:
            return Throttled(told, store=store, operation=operation, retry_after=retry_after)
        case 408 | 500 | 502 | 503 | 504:
            return Unavailable(told, store=store, operation=operation, retry_after=retry_after)
        case 400 | 409 | 413 | 422:
            return Refused(told, store=store, operation=operation)
        case _:
            return Permanent(told, store=store, operation=operation)


GRPC_STATUS = {
    "NOT_FOUND": 404,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "CANCELLED": 503,
    "ABORTED": 503,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "ALREADY_EXISTS": 409,
    "UNIMPLEMENTED": 501,
}
"""gRPC status names to the HTTP status that means the same to Qdrant."""


def from_client(error: Exception, *, store: str, operation: str, place: str = "") -> StoreError | None:  # noqa: PLR0911  # one return for each kind
    """The error for what ``qdrant_client`` raises over REST, over gRPC, and in local mode; None for what is not its.

    ``place`` is the server's host and port, where they are known, for messages.
    """
    found: Any = error
    names = {kind.__name__ for kind in type(error).__mro__}
    if "ResourceExhaustedResponse" in names:
        wish = max(float(found.retry_after_s), 0.0)
        return from_status(429, found.message, store=store, operation=operation, retry_after=wish)
    if "QdrantException" in names and "Retry-After" in str(error):
        # qdrant-client 1.20 stumbles over a Retry-After that is not a number of seconds.
        return from_status(429, "too many requests", store=store, operation=operation)
    if "UnexpectedResponse" in names:
        return from_status(
            found.status_code or 500,
            _reason(found.content),
            store=store,
            operation=operation,
            retry_after=_seconds(found.headers.get("Retry-After")),
        )
    if "ResponseHandlingException" in names:
        return _from_transport(found.source, store=store, operation=operation, place=place)
    if "RpcError" in names:
        name = found.code().name
        if "handshake failed" in (found.details() or ""):
            return _from_tls(found.details(), store=store, operation=operation)
        status = GRPC_STATUS.get(name, 501)
        return from_status(status, found.details() or "(no message)", store=store, operation=operation, name=name)
    if isinstance(error, JSONDecodeError) or (isinstance(error, AssertionError) and "returned None" in str(error)):
        return _from_transport(error, store=store, operation=operation, place=place)
    if not isinstance(error, ValueError):
        return None
    # Local mode raises ValueError for everything.
    message = str(error)[:LONGEST]
    if message.startswith("Collection ") and message.endswith("not found"):
        return NotFound(f"{message}: create it first", store=store, operation=operation)
    return Refused(message, store=store, operation=operation)


def _from_transport(source: BaseException, *, store: str, operation: str, place: str) -> StoreError:
    """An error below HTTP: refused, reset, timed out, or an answer that is not Qdrant's."""
    name = type(source).__name__
    if any(mark in name for mark in ("Validation", "Decode", "Assertion", "UnsupportedProtocol", "InvalidURL")):
        return Permanent(
            f"the answer is not Qdrant's ({name}): is this the right address?", store=store, operation=operation
        )
    if "SSL" in str(source):
        return _from_tls(str(source), store=store, operation=operation)
    server = f"the server at {place}" if place else "the server"
    return Unavailable(f"{server} cannot be reached: {name}: {source}", store=store, operation=operation)


def _from_tls(message: str, *, store: str, operation: str) -> StoreError:
    told = (
        f"TLS failed: {message[:LONGEST]}; does the server speak TLS here, with a certificate that this machine trusts?"
    )
    return Permanent(told, store=store, operation=operation)


def _reason(content: bytes) -> str:
    try:
        body = json.loads(content)
        return str(body["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip() or "(no message)"


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None


LOCKED = "WouldBlock"
"""What qdrant-edge 0.9 says of a write-ahead log that somebody else has locked."""

_REFUSED = ("dimension error", "Not existing vector name", "Wrong input", "Bad request", "Validation", "must be")


def from_edge(error: Exception, *, operation: str, folder: str) -> StoreError | None:  # noqa: PLR0911  # one return for each kind
    """The error for what ``qdrant_edge`` raises, which is a bare ``Exception`` with a text, and for its files; None for what is not its."""
    store = "qdrant+edge"
    message = str(error)[:LONGEST]
    if isinstance(error, OSError | JSONDecodeError):
        told = f"the folder {folder} cannot be used: {message}"
        return Permanent(told, store=store, operation=operation)
    if isinstance(error, ValueError):
        return Refused(message, store=store, operation=operation)
    if type(error) is not Exception:
        return None
    if LOCKED in message:
        told = f"the folder {folder} is in use by another process (or by an EdgeShard opened beside this library); close that one and try again"
        return Unavailable(told, store=store, operation=operation)
    if "not initialized" in message or "does not exist" in message:
        return NotFound(f"{message}: create the collection first", store=store, operation=operation)
    if any(mark in message for mark in _REFUSED):
        return Refused(message, store=store, operation=operation)
    return Permanent(message, store=store, operation=operation)
