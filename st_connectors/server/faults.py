"""The faults that a request can meet; each protocol has its own status and body for them."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Fault", "FaultKind"]


class FaultKind(StrEnum):
    """Kinds of faults."""

    NOT_JSON = "not_json"  # the body is not JSON, or is cut off
    MALFORMED = "malformed"  # a field is missing or has the wrong type
    INVALID = "invalid"  # a value that is not allowed
    EMPTY = "empty"  # no input, or an input that must not be empty
    TOO_MANY = "too_many"  # more texts, or a larger body, than allowed
    TOO_LONG = "too_long"  # a text has more tokens than the model reads, and may not be truncated
    UNKNOWN_MODEL = "unknown_model"
    WRONG_KIND = "wrong_kind"  # no model of the kind that the route needs
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"  # no such path
    WRONG_METHOD = "wrong_method"
    MEDIA_TYPE = "media_type"
    TIMEOUT = "timeout"  # the body did not arrive in time
    OVERLOADED = "overloaded"  # the queue is full
    UNAVAILABLE = "unavailable"  # models are being loaded, or the server is stopping
    FAILED = "failed"  # the model failed


class Fault(Exception):
    """The reason that a request is refused; the message never contains a text of the request.

    ``field`` is the field at fault. ``retry_after`` is the number of seconds after which trying again can help.
    """

    def __init__(self, kind: FaultKind, message: str, field: str | None = None, retry_after: int | None = None) -> None:
        """Store the parts of the answer."""
        super().__init__(kind, message, field, retry_after)
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message
