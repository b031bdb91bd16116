"""One HTTP/1.1 connection, to a client or to a node: h11 between asyncio streams, with bounded buffers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import h11

__all__ = ["Event", "Headers", "Peer", "end_to_end", "header"]

HEADER_BYTES = 65_536
"""The largest header of a message."""
READ_BYTES = 65_536
"""The number of bytes that are read at a time."""

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names, in the case in which they arrived, and values."""
Event: TypeAlias = h11.Event | type[h11.PAUSED]

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"trailer"})


class Peer:
    """A connection with the state of its messages; ``role`` is h11.SERVER towards a client, h11.CLIENT to a node."""

    def __init__(
        self,
        role: type[h11.SERVER | h11.CLIENT],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        pause_s: float | None = None,
    ) -> None:
        """Begin with the first message of a connection.

        ``pause_s`` limits the seconds without a byte of a body, and those in which the other side reads what was sent.
        """
        self.http = h11.Connection(role, max_incomplete_event_size=HEADER_BYTES)
        self._reader = reader
        self._writer = writer
        self._pause_s = pause_s

    @property
    def is_reusable(self) -> bool:
        """Whether both messages of an exchange are complete, so that another exchange can follow."""
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE and not self._writer.is_closing()

    @property
    def is_stale(self) -> bool:
        """Whether the other side closed an idle connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def receive(self) -> Event:
        """Return the next event; raises h11.RemoteProtocolError for what is not HTTP."""
        while (event := self.ready()) is None:
            await self.read()
        return event

    def ready(self) -> Event | None:
        """Return the next event, None if more bytes must be read first."""
        event = self.http.next_event()
        return None if event is h11.NEED_DATA else event  # type: ignore[return-value]

    async def read(self) -> None:
        """Read bytes for the next event; raises TimeoutError after a pause in a body."""
        is_body = self.http.their_state is h11.SEND_BODY
        async with asyncio.timeout(self._pause_s if is_body else None):
            self.http.receive_data(await self._reader.read(READ_BYTES))

    async def send(self, *events: h11.Event) -> None:
        """Send events together; waits while the other side does not read, and raises TimeoutError after a pause."""
        data = b"".join(self.http.send(event) or b"" for event in events)
        if not data:
            return
        self._writer.write(data)
        try:
            async with asyncio.timeout(self._pause_s):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()  # closing would wait until what was sent is read
            raise

    async def body(self, limit: int) -> bytes:
        """Return the body of a message; raises ValueError if it has more than ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        while isinstance(event := await self.receive(), h11.Data):
            size += len(event.data)
            if size > limit:
                raise ValueError(f"the body has more than {limit:,} bytes")
            parts.append(bytes(event.data))
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionError("the body was cut off")
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the values of a header, joined by commas; ``name`` is in lower case."""
    return b", ".join(value for each, value in headers if each.lower() == name)


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers that are for the other end, in their order and case, with one way to tell where a body ends.

    A ``Content-Length`` beside ``Transfer-Encoding`` would be read by each server in its own way.
    """
    named = {each.strip().lower() for each in header(headers, b"connection").split(b",")}
    left = _HOP_BY_HOP | named
    if header(headers, b"transfer-encoding"):
        left |= {b"content-length"}
    return [(name, value) for name, value in headers if name.lower() not in left]
