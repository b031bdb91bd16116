"""Requests to a store as values, which can be printed before they are sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KEY", "Request", "digest", "resolve"]

KEY = "ST_REMOTE_API_KEY"
"""The environment variable with the key of the encoder server; printed requests contain its name in its place."""


@dataclass(frozen=True, slots=True)
class Request:
    """A method, a path and a JSON body.

    Ids that a store assigns are written as references such as ``<connector books-dense-query>``, and the key of the
    encoder server as ``$ST_REMOTE_API_KEY``.
    """

    method: str
    path: str
    body: Any = None

    def __str__(self) -> str:
        """Return the request as text, in the form that consoles of stores accept."""
        head = f"{self.method} {self.path}"
        return head if self.body is None else f"{head}\n{json.dumps(self.body, indent=2, ensure_ascii=False)}"

    def to_json(self) -> dict[str, Any]:
        """Return the request as values that can be written as JSON."""
        return {"method": self.method, "path": self.path, "body": self.body}


def resolve(value: Any, known: Mapping[str, str]) -> Any:
    """Return a body with the values of the references and of the key that it contains as whole strings."""
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, Mapping):
        return {key: resolve(each, known) for key, each in value.items()}
    return [resolve(each, known) for each in value] if isinstance(value, list) else value


def digest(*values: Any) -> str:
    """Return 16 hexadecimal digits that change when one of the values changes."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
