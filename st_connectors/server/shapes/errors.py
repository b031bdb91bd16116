"""The status and the body of a fault in the form of each API.

Statuses are those on which the clients of an API retry, or do not. 413 is a text that is too long and may not be
truncated, and nothing else: Elasticsearch takes it for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from st_connectors.server.faults import Fault, FaultKind

__all__ = ["COHERE", "JINA", "OPENAI", "PLAIN", "TEI", "UNION", "VLLM", "Style"]

_COMMON: Mapping[FaultKind, int] = {
    FaultKind.NOT_JSON: 400,
    FaultKind.MALFORMED: 400,
    FaultKind.INVALID: 400,
    FaultKind.EMPTY: 400,
    FaultKind.TOO_MANY: 400,
    FaultKind.TOO_LONG: 413,
    FaultKind.UNKNOWN_MODEL: 404,
    FaultKind.WRONG_KIND: 400,
    FaultKind.UNAUTHORIZED: 401,
    FaultKind.NOT_FOUND: 404,
    FaultKind.WRONG_METHOD: 405,
    FaultKind.MEDIA_TYPE: 415,
    FaultKind.TIMEOUT: 408,
    FaultKind.OVERLOADED: 429,
    FaultKind.UNAVAILABLE: 503,
    FaultKind.FAILED: 500,
}


@dataclass(frozen=True, slots=True)
class Style:
    """How an API reports faults: the status of each kind, and the body of a fault with its status and request id."""

    statuses: Mapping[FaultKind, int]
    write: Callable[[Fault, int, str], Any]

    def status(self, fault: Fault) -> int:
        """Return the HTTP status of a fault."""
        return self.statuses[fault.kind]


_TEI_TYPES: Mapping[FaultKind, str] = {
    FaultKind.EMPTY: "Empty",
    FaultKind.WRONG_KIND: "Backend",
    FaultKind.FAILED: "Backend",
    FaultKind.OVERLOADED: "Overloaded",
    FaultKind.UNAVAILABLE: "Unhealthy",
}

_OPENAI_TYPES: Mapping[FaultKind, str] = {
    FaultKind.UNAUTHORIZED: "authentication_error",
    FaultKind.OVERLOADED: "rate_limit_error",
    FaultKind.UNAVAILABLE: "server_error",
    FaultKind.FAILED: "server_error",
}
_OPENAI_CODES: Mapping[FaultKind, str] = {
    FaultKind.UNKNOWN_MODEL: "model_not_found",
    FaultKind.UNAUTHORIZED: "invalid_api_key",
    FaultKind.OVERLOADED: "rate_limit_exceeded",
    FaultKind.TOO_LONG: "context_length_exceeded",
}
_JINA_CODES: Mapping[FaultKind, str] = {
    FaultKind.UNKNOWN_MODEL: "INPUT_MODEL_NOT_FOUND",
    FaultKind.TOO_LONG: "INPUT_TOKEN_LIMIT_EXCEEDED",
    FaultKind.OVERLOADED: "RATE_LIMIT_EXCEEDED",
    FaultKind.UNAUTHORIZED: "AUTH_INVALID_API_KEY",
}


def _tei(fault: Fault, _status: int, _request_id: str) -> dict[str, Any]:
    return {"error": fault.message, "error_type": _TEI_TYPES.get(fault.kind, "Validation")}


def _openai(fault: Fault, _status: int, _request_id: str) -> dict[str, Any]:
    return {
        "error": {
            "message": fault.message,
            "type": _OPENAI_TYPES.get(fault.kind, "invalid_request_error"),
            "param": fault.field,
            "code": _OPENAI_CODES.get(fault.kind),
        }
    }


def _vllm(fault: Fault, status: int, request_id: str) -> dict[str, Any]:
    error = _openai(fault, status, request_id)["error"]
    return {"error": error | {"code": status}}


def _cohere(fault: Fault, _status: int, request_id: str) -> dict[str, Any]:
    return {"message": fault.message, "id": request_id}


def _jina(fault: Fault, _status: int, request_id: str) -> dict[str, Any]:
    return {"detail": fault.message, "code": _JINA_CODES.get(fault.kind), "request_id": request_id}


def _union(fault: Fault, status: int, request_id: str) -> dict[str, Any]:
    return _vllm(fault, status, request_id) | _jina(fault, status, request_id) | _cohere(fault, status, request_id)


def _plain(fault: Fault, _status: int, _request_id: str) -> dict[str, Any]:
    return {"error": fault.message}


TEI = Style(
    {
        **_COMMON,
        FaultKind.MALFORMED: 422,
        FaultKind.INVALID: 422,
        FaultKind.TOO_MANY: 422,
        FaultKind.WRONG_KIND: 424,
        FaultKind.FAILED: 424,
    },
    _tei,
)
OPENAI = Style(_COMMON, _openai)
VLLM = Style(_COMMON, _vllm)
COHERE = Style({**_COMMON, FaultKind.TOO_MANY: 422, FaultKind.INVALID: 422}, _cohere)
JINA = Style({**_COMMON, FaultKind.UNKNOWN_MODEL: 400, FaultKind.MALFORMED: 422}, _jina)
UNION = Style(_COMMON, _union)
"""For paths that several APIs share and whose requests do not differ."""
PLAIN = Style(_COMMON, _plain)
