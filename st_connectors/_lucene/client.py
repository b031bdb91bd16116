"""A connection to a server, which returns parsed responses and raises store errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from st_connectors._lucene.faults import wrong_product
from st_connectors.errors import Permanent

__all__ = ["Connection", "Exchange", "Request"]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One HTTP request; ``operation`` is the store operation, for messages.

    If there are ``lines``, they are sent as JSON lines instead of ``body``; lines that are bytes are sent unchanged.
    ``smile`` are documents in SMILE, which are sent instead of both.
    """

    operation: str
    method: str
    path: str
    body: object = None
    lines: Sequence[object] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    smile: bytes = b""


Exchange: TypeAlias = Callable[[Request], Any]
"""A function that sends a request with the client of an engine, and returns the parsed response or raises a store
error."""


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """An open client of one engine. Safe for use from several threads.

    ``name`` is the scheme of the address and ``product`` the name of the product; both are used in messages.
    ``sends_smile`` states whether the client can send SMILE.
    """

    name: str
    product: str
    exchange: Exchange
    close: Callable[[], None]
    sends_smile: bool = True

    def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: object = None,
        *,
        lines: Sequence[object] = (),
        params: Mapping[str, str] | None = None,
        smile: bytes = b"",
        expect: str | None = None,
    ) -> Any:
        """Send one request and return the parsed response.

        Raises a store error for any failure, and ``Permanent`` if the response lacks the key ``expect``.
        """
        answer = self.exchange(Request(operation, method, path, body, lines, params or {}, smile))
        try:
            if expect is not None:
                answer[expect]
        except (LookupError, TypeError) as error:
            raise self.unexpected(operation) from error
        return answer

    def send_optional(self, operation: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the parsed response to a GET request, or None if the server refuses the request.

        Requests about the cluster are refused by managed services, and for users without the permission.
        """
        try:
            return self.send(operation, "GET", path, params=params)
        except Permanent:
            return None

    def unexpected(self, operation: str) -> Permanent:
        """Return the error for a response in an unexpected form, which probably comes from another product."""
        return wrong_product(self.product, "it has another form", store=self.name, operation=operation)
