"""pymilvus's and gRPC's errors to ours; pure. Messages are the server's own words, cut short, without the request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from st_connectors.errors import NotFound, Permanent, Refused, StoreError, Throttled, Unavailable

__all__ = ["from_client", "is_already_there"]

CONNECT = 2
"""pymilvus 3.0's own code for a server that it cannot talk to, for whatever reason."""
LONGEST = 300
"""Characters of a message that are kept."""

_RETRY = re.compile(r"\[\w+\] Retry (?:run out of \d+ retry times|timeout: [\d.]+s), (?:message=)?")
"""What pymilvus puts before the server's words; nothing was retried."""

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
"""gRPC statuses; any other is permanent."""

_CODES: Mapping[int, type[StoreError]] = {
    1: Permanent,  # unexpected error, which the message tells
    2: Unavailable,  # cannot connect
    3: Unavailable,  # memory or disk quota
    4: NotFound,  # the old number of "collection not found"
    5: Permanent,
    6: Refused,  # illegal argument, of 2.3 and of Milvus Lite
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
"""Milvus's codes (pkg/util/merr); others by the server's own word on whether to retry."""

_UNAUTHENTICATED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
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
"""What pymilvus raises about a request before anything is sent."""


def from_client(error: Exception, *, store: str, operation: str) -> StoreError | None:
    """The error for what ``pymilvus`` and its gRPC channel raise; None for what is not theirs."""
    found: Any = error
    names = {kind.__name__ for kind in type(error).__mro__}
    if "RpcError" in names and callable(getattr(found, "code", None)):
        return _from_status(found.code().name, found.details() or "", store=store, operation=operation)
    if "MilvusException" not in names:
        return None
    message = _RETRY.sub("", str(found.message))
    if not isinstance(found.code, int):  # pymilvus hands on the status of a call it has given up, 2.6 as what gives it
        status = found.code() if callable(found.code) else found.code
        return _from_status(status.name, message, store=store, operation=operation)
    told = f"Milvus answered {int(found.code)}: {message[:LONGEST]}"
    if names & _CLIENT_SIDE:
        return Refused(message[:LONGEST], store=store, operation=operation)
    if any(mark in message.lower() for mark in _BUSY):
        return Throttled(told, store=store, operation=operation)
    # pymilvus tells these two from 3.0 on
    kind = _CODES.get(int(found.code), Unavailable if getattr(found, "retriable", False) else Permanent)
    if kind is Permanent and getattr(found, "is_input_error", False):
        kind = Refused
    if kind is NotFound:
        told = f"{message[:LONGEST]}: create the collection first"
    if int(found.code) == CONNECT and "+https" in store:
        told = f"{told}; or it speaks no TLS here: then write milvus://"
    elif int(found.code) == CONNECT:
        told = f"{told}; or it speaks TLS: then write milvus+https://"
    return kind(told, store=store, operation=operation)


def _from_status(name: str, message: str, *, store: str, operation: str) -> StoreError:
    told = f"{name}: {message[:LONGEST]}"
    if name in _UNAUTHENTICATED:
        told = f"{told}; set ST_MILVUS_TOKEN to a token, or user:password, that may do this"
        return Permanent(told, store=store, operation=operation)
    return _STATUS.get(name, Permanent)(told, store=store, operation=operation)


def is_already_there(error: StoreError) -> bool:
    """Whether somebody else was quicker in making the collection."""
    return "already exist" in error.message
