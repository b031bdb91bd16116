"""One request of a client: how its body is read, and how it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import h11

from st_connectors.gateway.answers import Problem, answer_headers, encode_answer, error_body
from st_connectors.gateway.bulk import Inflater
from st_connectors.gateway.peers import Headers, Peer, end_to_end, header
from st_connectors.gateway.routes import Route, parse_route
from st_connectors.gateway.upstream import Answer

__all__ = ["AnsweredError", "Exchange", "body_events"]

PIECE_BYTES = 65_536
"""The number of bytes of a decompressed body that are returned at a time."""
PAUSE_S = 1.0
"""The seconds without a byte after which the rest of a refused body is not read."""
CREDENTIALS = frozenset({b"authorization", b"es-security-runas-user", b"securitytenant"})
"""The headers by which an engine knows who sends a request."""
_JSON = (b"", b"application/json", b"application/x-ndjson", b"application/x-www-form-urlencoded", b"text/plain")


class AnsweredError(Exception):
    """The answer has begun and cannot be completed, so that the connection must be closed."""


@dataclass(eq=False)
class Exchange:
    """A request, and the connection on which it is answered; ``engine`` is the name of the engine."""

    client: Peer
    request: h11.Request
    engine: str
    raw: list[bytes] = field(default_factory=list)
    """The pieces of the body as they arrived, while they are stored."""

    @cached_property
    def headers(self) -> Headers:
        """The headers, with names in the case in which they arrived."""
        return list(self.request.headers.raw_items())

    @cached_property
    def route(self) -> Route:
        """What the request asks for."""
        return parse_route(self.request.method.decode(), self.request.target.decode("latin-1"))

    @property
    def credentials(self) -> Headers:
        """The headers that say who sends the request."""
        return [(name.lower(), value) for name, value in self.headers if name.lower() in CREDENTIALS]

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body."""
        return bool(self.request.method == b"HEAD")

    @property
    def has_begun(self) -> bool:
        """Whether a part of the answer has been sent."""
        return self.client.http.our_state not in (h11.SEND_RESPONSE, h11.IDLE)

    @property
    def length(self) -> int | None:
        """The length of the body, None if it is sent in chunks."""
        if header(self.headers, b"transfer-encoding"):
            return None
        return int(header(self.headers, b"content-length") or 0)

    def check_media_type(self) -> None:
        """Raise Problem for a body in another format than JSON, which the gateway cannot read."""
        kind = header(self.headers, b"content-type").partition(b";")[0].strip().lower()
        if kind in _JSON or kind.endswith((b"+json", b"+x-ndjson")):
            return
        reason = f"the gateway adds vectors to documents in JSON: the media type {kind.decode('latin-1')} is not read"
        raise Problem(415, "st_connectors_media_type_exception", reason)

    async def admit(self) -> None:
        """Let a client send its body that waits for permission."""
        if self.client.http.they_are_waiting_for_100_continue:
            await self.client.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    async def read(self, limit: int) -> bytes:
        """Return the body as it arrives; raises Problem for a larger one."""
        await self.admit()
        try:
            return await self.client.body(limit)
        except ValueError as error:
            raise _too_large(limit) from error

    def inflated(self, body: bytes, limit: int) -> bytes:
        """Return a body without its compression; raises Problem for a larger one."""
        parts: list[bytes] = []
        inflater = Inflater(header(self.headers, b"content-encoding"))
        for piece in inflater.feed(body, PIECE_BYTES):
            parts.append(piece)
            if len(parts) * PIECE_BYTES > limit + PIECE_BYTES:
                raise _too_large(limit)
        inflater.finish()
        return b"".join(parts)

    async def pieces(self, limit: int) -> AsyncIterator[bytes]:
        """Yield the body without its compression as it arrives; raises Problem for a larger one."""
        await self.admit()
        inflater = Inflater(header(self.headers, b"content-encoding"))
        size = 0
        while isinstance(event := await self.client.receive(), h11.Data):
            data = bytes(event.data)
            self.raw.append(data)
            for piece in inflater.feed(data, PIECE_BYTES):
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                yield piece
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionError("the body was cut off")
        inflater.finish()

    async def drain(self, limit: int) -> None:
        """Read the rest of the body, so that a client that sends it all first reads the answer; up to a pause in it."""
        size = 0
        with suppress(TimeoutError):
            while self.client.http.their_state is h11.SEND_BODY and size <= limit:
                async with asyncio.timeout(PAUSE_S):
                    event = await self.client.receive()
                size += len(event.data) if isinstance(event, h11.Data) else 0

    async def respond(self, status: int, body: Mapping[str, Any]) -> None:
        """Send an answer of the gateway."""
        content, encoding = encode_answer(body, self.headers)
        await self._send(status, [*answer_headers(self.headers, self.engine), *encoding], content)

    async def refuse(self, problem: Problem) -> None:
        """Send an error of the gateway; raises AnsweredError if the answer has begun."""
        if self.has_begun:
            raise AnsweredError
        await self.respond(problem.status, error_body(problem))

    async def repeat(self, answer: Answer) -> None:
        """Send the answer of a node."""
        dropped = (b"content-length", b"transfer-encoding")
        headers = [each for each in end_to_end(answer.headers) if each[0].lower() not in dropped]
        await self._send(answer.status, headers, answer.body)

    async def _send(self, status: int, headers: Headers, content: bytes) -> None:
        head = h11.Response(status_code=status, headers=[*headers, (b"content-length", b"%d" % len(content))])
        await self.client.send(head, *([] if self.is_head else body_events(content)), h11.EndOfMessage())


def body_events(body: bytes) -> list[h11.Event]:
    """Return the events of a body."""
    return [h11.Data(data=body)] if body else []


def _too_large(limit: int) -> Problem:
    return Problem(
        413, "content_too_long_exception", f"the body has more than {limit:,} bytes, which the gateway reads"
    )
