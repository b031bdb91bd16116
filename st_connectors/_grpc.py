"""The HTTP status that corresponds to each gRPC status, for the adapters whose clients use gRPC."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HTTP_STATUS", "http_status"]

HTTP_STATUS: Mapping[str, int] = {
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
"""The HTTP status by the name of the gRPC status. A call with CANCELLED or ABORTED can be repeated, as one with 503."""


def http_status(name: str) -> int:
    """Return the HTTP status for the name of a gRPC status; 501, after which no retry can help, for any other name."""
    return HTTP_STATUS.get(name, 501)
