"""Answers that the gateway writes itself, in the form of the engines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

from st_connectors.gateway.peers import Headers, header

__all__ = ["ENCODING", "Problem", "answer_headers", "encode_answer", "error_body"]

ENCODING = "st_connectors_encoding_exception"
"""The type of errors of models."""
COMPRESSED = 1400
"""The number of bytes from which an answer is compressed, if the client accepts it."""


class Problem(Exception):
    """The reason for which a request, or one item of it, is refused by the gateway."""

    def __init__(self, status: int, kind: str, reason: str) -> None:
        """Store the status, the type of the error in the answer, and the reason."""
        super().__init__(status, kind, reason)
        self.status = status
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason

    @property
    def error(self) -> dict[str, Any]:
        """The error of an item."""
        return {"type": self.kind, "reason": self.reason}


def error_body(problem: Problem) -> dict[str, Any]:
    """Return the body of an answer with an error."""
    return {"error": {"root_cause": [problem.error], **problem.error}, "status": problem.status}


def encode_answer(body: Mapping[str, Any], request: Headers) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the bytes of an answer, compressed if the client accepts it, and the headers about its encoding."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(content) < COMPRESSED or b"gzip" not in header(request, b"accept-encoding"):
        return content, []
    return gzip.compress(content, 1), [(b"content-encoding", b"gzip")]


def answer_headers(request: Headers, engine: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer: the media type that the client accepts, and the product that it checks."""
    accepted = header(request, b"accept")
    own = b"application/json; charset=UTF-8"
    if b"vnd.elasticsearch+json" in accepted:
        own = accepted.partition(b",")[0].replace(b"; ", b";")
    headers = [(b"content-type", own)]
    if engine == "elasticsearch":
        headers.insert(0, (b"X-elastic-product", b"Elasticsearch"))
    opaque = header(request, b"x-opaque-id")
    return [*headers, *([(b"X-Opaque-Id", opaque)] if opaque else [])]
