"""Convert the errors of pymilvus and gRPC to store errors.

Error messages quote the server's message, shortened, but never the request.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from st_connectors._grpc import http_status, is_too_large
from st_connectors.errors import NotFound, Permanent, Refused, StoreError, Throttled, Unavailable

__all__ = ["capture_logs", "from_client", "is_already_there", "translate_errors"]

CONNECT = 2
"""The code that pymilvus 3.0 uses for every failure to connect to a server."""
MAX_MESSAGE = 300
"""The maximum number of characters of a server's message that an error contains."""

_RETRY_PREFIX = re.compile(r"\[\w+\] Retry (?:run out of \d+ retry times|timeout: [\d.]+s), (?:message=)?")
"""The prefix that pymilvus adds to the text of the server, even if it has not retried the call."""

_STATUS: Mapping[str, type[StoreError]] = {
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "CANCELLED": Unavailable,
    "ABORTED": Unavailable,
    "INTERNAL": Unavailable,
    "UNKNOWN": Unavailable,
    "RESOURCE_EXHAUSTED": Throttled,
    "NOT_FOUND": NotFound,
    "INVALID_ARGUMENT": Refused,
    "OUT_OF_RANGE": Refused,
    "FAILED_PRECONDITION": Refused,
}
"""The error class of each gRPC status; every other status is ``Permanent``."""

_CODES: Mapping[int, type[StoreError]] = {
    1: Permanent,  # unexpected error, explained by the message
    2: Unavailable,  # cannot connect
    3: Unavailable,  # memory or disk quota
    4: NotFound,  # the former code of "collection not found"
    5: Permanent,
    6: Refused,  # illegal argument, in 2.3 and Milvus Lite
    8: Throttled,
    9: Throttled,
    100: NotFound,
    101: Unavailable,  # the collection is not loaded yet
    103: Unavailable,  # schema just changed
    106: NotFound,
    503: Unavailable,
    1100: Refused,  # parameter invalid
    1101: Refused,
    1102: Refused,
    1700: Refused,
    1801: Refused,
    1804: Refused,
    1807: Refused,
}
"""The error class of each Milvus code (pkg/util/merr). The class of every other code depends on the flag ``retriable``
that the server sends."""

_UNAUTHENTICATED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_TOO_LARGE = (
    "the request is larger than the server (proxy.grpc.serverMaxRecvSize) or a proxy before it accepts: "
    "shorten the record, or raise that limit"
)
_BUSY = ("rate limit", "quota", "too many requests")
_CLIENT_SIDE = frozenset(
    {
        "ParamError",
        "DataNotMatchException",
        "DataTypeNotMatchException",
        "DataTypeNotSupportException",
        "PrimaryKeyException",
    }
)
"""The names of the errors that pymilvus raises for invalid requests before it sends them."""


def from_client(error: Exception, *, store: str, operation: str) -> StoreError | None:
    """Translate an error of ``pymilvus`` or its gRPC channel; return None for any other error."""
    driver_error: Any = error
    names = {kind.__name__ for kind in type(error).__mro__}
    if "RpcError" in names and callable(getattr(driver_error, "code", None)):
        return _from_status(driver_error.code().name, driver_error.details() or "", store=store, operation=operation)
    if "MilvusException" not in names:
        return None
    text = _RETRY_PREFIX.sub("", str(driver_error.message))
    if not isinstance(driver_error.code, int):  # the gRPC status of a failed call; pymilvus 2.6 passes its method
        status = driver_error.code() if callable(driver_error.code) else driver_error.code
        return _from_status(status.name, text, store=store, operation=operation)
    code = int(driver_error.code)
    message = f"Milvus answered {code}: {text[:MAX_MESSAGE]}"
    if names & _CLIENT_SIDE:
        return Refused(text[:MAX_MESSAGE], store=store, operation=operation)
    if any(mark in text.lower() for mark in _BUSY):
        return Throttled(message, store=store, operation=operation)
    # pymilvus has set the flags retriable and is_input_error since 3.0.
    kind = _CODES.get(code, Unavailable if getattr(driver_error, "retriable", False) else Permanent)
    if kind is Permanent and getattr(driver_error, "is_input_error", False):
        kind = Refused
    if kind is NotFound:
        message = f"{text[:MAX_MESSAGE]}: create the collection first"
    if code == CONNECT and "+https" in store:
        message = f"{message}; if the server speaks no TLS on this port, write milvus://"
    elif code == CONNECT:
        message = f"{message}; if the server speaks TLS on this port, write milvus+https://"
    return kind(message, store=store, operation=operation)


def _from_status(name: str, text: str, *, store: str, operation: str) -> StoreError:
    message = f"{name}: {text[:MAX_MESSAGE]}"
    if is_too_large(text):
        return Refused(f"{message}; {_TOO_LARGE}", store=store, operation=operation, status=413)
    if name in _UNAUTHENTICATED:
        message = f"{message}; set ST_MILVUS_TOKEN to a token, or user:password, with the permission"
    if name == "DEADLINE_EXCEEDED":
        message = f"no answer in time ({text[:MAX_MESSAGE]}); ?timeout=SECONDS in the address allows more"
    return _STATUS.get(name, Permanent)(message, store=store, operation=operation, status=http_status(name))


def is_already_there(error: StoreError) -> bool:
    """Return whether the collection or index already exists, for example because another client created it."""
    return "already exist" in error.message


@contextmanager
def translate_errors(store: str, operation: str) -> Iterator[None]:
    """Raise errors of the driver as store errors, and suppress the log records of the driver.

    ``store`` and ``operation`` become part of the store errors. Other errors are raised unchanged.
    """
    try:
        with capture_logs():
            yield
    except StoreError:
        raise
    except Exception as error:
        translated = from_client(error, store=store, operation=operation)
        if translated is None:
            raise
        raise translated from error


_CAPTURED: ContextVar[list[BaseException] | None] = ContextVar("captured", default=None)


class _CaptureErrors(logging.Filter):
    """Suppresses log records during calls, because pymilvus logs every error with its traceback before raising it."""

    def filter(self, record: logging.LogRecord) -> bool:
        captured = _CAPTURED.get()
        if captured is not None and record.exc_info and record.exc_info[1] is not None:
            captured.append(record.exc_info[1])
        return captured is None


_FILTER = _CaptureErrors()
for _name in ("pymilvus.decorators", "milvus_lite.server_manager"):
    logging.getLogger(_name).addFilter(_FILTER)


def _is_without_traceback(record: logging.LogRecord) -> bool:
    """Return False for a record with a traceback: Milvus Lite logs each error that it also returns to the client."""
    return not record.exc_info


logging.getLogger("milvus_lite.adapter.grpc.servicer").addFilter(_is_without_traceback)


@contextmanager
def capture_logs() -> Iterator[list[BaseException]]:
    """Suppress the log records of the driver and collect their errors; nested blocks share one list."""
    outer = _CAPTURED.get()
    captured: list[BaseException] = [] if outer is None else outer
    token = _CAPTURED.set(captured)
    try:
        yield captured
    finally:
        _CAPTURED.reset(token)
