"""A connection to a server: one request at a time, its answer parsed, its errors as store errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from st_connectors._lucene.faults import wrong_product
from st_connectors.errors import Permanent

__all__ = ["Connection", "Exchange", "Request"]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One HTTP request; ``lines`` are sent as JSON lines instead of ``body``, those that are bytes unchanged."""

    operation: str
    method: str
    path: str
    body: object = None
    lines: Sequence[object] = ()
    params: Mapping[str, str] = field(default_factory=dict)


Exchange: TypeAlias = Callable[[Request], Any]
"""Sends a request with an engine's client; returns the parsed answer, or raises a store error."""


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """An open client of one engine; ``name`` is the address's scheme, for messages. Safe in threads."""

    name: str
    product: str
    exchange: Exchange
    close: Callable[[], None]

    def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: object = None,
        *,
        lines: Sequence[object] = (),
        params: Mapping[str, str] | None = None,
        expect: str | None = None,
    ) -> Any:
        """Return the parsed answer to one request.

        Raises the store error of any failure, and ``Permanent`` where the answer lacks the key ``expect``.
        """
        answer = self.exchange(Request(operation, method, path, body, lines, params or {}))
        try:
            if expect is not None:
                answer[expect]
        except (LookupError, TypeError) as error:
            raise self.unexpected(operation) from error
        return answer

    def send_optional(self, operation: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the answer to a GET, or None where the server refuses it.

        Managed services and users without the right get an error for questions about the cluster.
        """
        try:
            return self.send(operation, "GET", path, params=params)
        except Permanent:
            return None

    def unexpected(self, operation: str) -> Permanent:
        """Return the error for an answer of another product."""
        return wrong_product(self.product, "it has another form", store=self.name, operation=operation)
