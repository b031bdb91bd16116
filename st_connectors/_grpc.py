"""What a gRPC status means in HTTP, for the adapters whose clients use gRPC."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["HTTP_STATUS", "http_status", "is_too_large"]

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


_TOO_LARGE = re.compile(r"(?i)message larger than max|message length too large|http2 header with status: 413")
"""The texts of grpc and grpc-go, of tonic, and of a proxy that answers 413. The statuses differ, and some of them mean
that the call can be repeated."""


def is_too_large(text: str) -> bool:
    """Return whether the text of a gRPC status says that a message has too many bytes."""
    return _TOO_LARGE.search(text) is not None


def http_status(name: str) -> int:
    """Return the HTTP status for the name of a gRPC status; 501, after which no retry can help, for any other name."""
    return HTTP_STATUS.get(name, 501)
