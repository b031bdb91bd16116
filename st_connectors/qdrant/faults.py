"""Translate the errors of the drivers to store errors, with one function per driver.

Messages contain the text of the server, shortened, but never the request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json import JSONDecodeError
from typing import Any

from st_connectors._answers import is_cut_off
from st_connectors._grpc import http_status, is_too_large
from st_connectors.errors import NotFound, Permanent, Refused, StoreError, Throttled, Unavailable

__all__ = ["LOCKED", "from_client", "from_edge", "from_status", "unusable_folder"]

MAX_MESSAGE = 300
"""The maximum number of characters of a server's message that an error contains: enough to describe the error, too few
to contain a batch."""

_TOO_LARGE = (
    "the request is larger than the server (service.max_request_size_mb) or a proxy before it accepts: "
    "shorten the record, or raise that limit"
)


def from_status(
    status: int, message: str, *, store: str, operation: str, retry_after: float | None = None, name: str = ""
) -> StoreError:
    """Return the store error for an HTTP status other than success; over gRPC, ``name`` is the name of its status."""
    reason = f"the server answered {name or status}: {message[:MAX_MESSAGE]}"
    names: Mapping[str, Any] = {"store": store, "operation": operation, "status": status}
    match status:
        case 404:
            return NotFound(reason, **names)
        case 401 | 403:
            return Permanent(f"{reason}; set ST_QDRANT_API_KEY to a key with the permission", **names)
        case 429:
            return Throttled(reason, retry_after=retry_after, **names)
        case 408 | 500 | 502 | 503 | 504:
            return Unavailable(reason, retry_after=retry_after, **names)
        case 400 | 409 | 413 | 422:
            return Refused(f"{reason}; {_TOO_LARGE}" if status == 413 else reason, **names)
        case _:
            return Permanent(reason, **names)


def from_client(error: Exception, *, store: str, operation: str, place: str = "") -> StoreError | None:  # noqa: PLR0911  # one return per error class
    """Translate an error of ``qdrant_client`` over REST, over gRPC or in local mode; return None for any other error.

    ``place`` is the server's host and port, if known, for messages.
    """
    driver_error: Any = error
    names = {kind.__name__ for kind in type(error).__mro__}
    if "ResourceExhaustedResponse" in names:
        retry_after = max(float(driver_error.retry_after_s), 0.0)
        return from_status(429, driver_error.message, store=store, operation=operation, retry_after=retry_after)
    if "QdrantException" in names and "Retry-After" in str(error):
        # qdrant-client 1.20 fails on a Retry-After that is not a number of seconds.
        return from_status(429, "too many requests", store=store, operation=operation)
    if "UnexpectedResponse" in names:
        return from_status(
            driver_error.status_code or 500,
            _reason(driver_error.content),
            store=store,
            operation=operation,
            retry_after=_seconds(driver_error.headers.get("Retry-After")),
        )
    if "ResponseHandlingException" in names:
        return _from_transport(driver_error.source, store=store, operation=operation, place=place)
    if "RpcError" in names:
        name = driver_error.code().name
        if "handshake failed" in (driver_error.details() or ""):
            return _from_tls(driver_error.details(), store=store, operation=operation)
        words = driver_error.details() or "(no message)"
        status = 413 if is_too_large(words) else http_status(name)
        return from_status(status, words, store=store, operation=operation, name=name)
    if isinstance(error, JSONDecodeError | UnicodeDecodeError) or (
        isinstance(error, AssertionError) and "returned None" in str(error)
    ):
        return _from_transport(error, store=store, operation=operation, place=place)
    if not isinstance(error, ValueError):
        return None
    # Local mode raises ValueError for every kind of error.
    message = str(error)[:MAX_MESSAGE]
    if message.startswith("Collection ") and message.endswith("not found"):
        return NotFound(f"{message}: create it first", store=store, operation=operation)
    return Refused(message, store=store, operation=operation)


def _from_transport(source: BaseException, *, store: str, operation: str, place: str) -> StoreError:
    """Return the error for a failed connection, a timeout, or a response that is not from Qdrant."""
    name = type(source).__name__
    body = source.object if isinstance(source, UnicodeDecodeError) else getattr(source, "doc", "")
    if is_cut_off(body):
        message = "the answer was cut off; the server may have executed the request"
        return Unavailable(message, store=store, operation=operation)
    if any(mark in name for mark in ("Validation", "Decode", "Assertion", "UnsupportedProtocol", "InvalidURL")):
        return Permanent(
            f"the response is not Qdrant's ({name}): is this the right address?", store=store, operation=operation
        )
    if "SSL" in str(source):
        return _from_tls(str(source), store=store, operation=operation)
    server = f"the server at {place}" if place else "the server"
    return Unavailable(f"{server} cannot be reached: {name}: {source}", store=store, operation=operation)


def _from_tls(message: str, *, store: str, operation: str) -> StoreError:
    reason = message[:MAX_MESSAGE]
    hint = "does the server speak TLS on this port, with a certificate that this machine trusts?"
    # A connection that ends is reset, or a server without TLS closed it.
    kind = Unavailable if "EOF" in reason else Permanent
    return kind(f"TLS failed: {reason}; {hint}", store=store, operation=operation)


def _reason(content: bytes) -> str:
    try:
        body = json.loads(content)
        return str(body["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip() or "(no message)"


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None


LOCKED = "WouldBlock"
"""The text in the error of qdrant-edge 0.9 for a write-ahead log that another process has locked."""

_REFUSED = ("dimension error", "Not existing vector name", "Wrong input", "Bad request", "Validation", "must be")


def unusable_folder(folder: str, error: Exception, *, operation: str) -> Permanent:
    """Return the error for a folder that is none, or whose files cannot be read."""
    message = str(error)[:MAX_MESSAGE]
    return Permanent(f"the folder {folder} cannot be used: {message}", store="qdrant+edge", operation=operation)


def from_edge(error: Exception, *, operation: str, folder: str) -> StoreError | None:  # noqa: PLR0911  # one return per error class
    """Translate an error of ``qdrant_edge``, which raises plain ``Exception``, or of its files.

    Returns None for any other error.
    """
    store = "qdrant+edge"
    message = str(error)[:MAX_MESSAGE]
    if isinstance(error, OSError | JSONDecodeError | UnicodeDecodeError):
        return unusable_folder(folder, error, operation=operation)
    if isinstance(error, ValueError):
        return Refused(message, store=store, operation=operation)
    if type(error) is not Exception:
        return None
    if LOCKED in message:
        where = f"the folder {folder} is in use by another process, or by an EdgeShard opened outside this library"
        return Unavailable(f"{where}; close that one and try again", store=store, operation=operation)
    if "not initialized" in message or "does not exist" in message:
        return NotFound(f"{message}: create the collection first", store=store, operation=operation)
    if any(mark in message for mark in _REFUSED):
        return Refused(message, store=store, operation=operation)
    return Permanent(message, store=store, operation=operation)
