"""The nodes behind a gateway: their connections, which of them answer, and requests of the gateway itself."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import h11

from st_connectors.gateway.peers import Headers, Peer
from st_connectors.gateway.settings import Limits
from st_connectors.plugin import Address

__all__ = ["Answer", "Link", "Node", "NodesDownError", "Upstream"]

logger = logging.getLogger(__name__)

CHECK_BYTES = 1_000_000
"""The largest answer to a check of a node."""
FAILURES = (OSError, TimeoutError, h11.RemoteProtocolError)
"""What is raised if a node cannot be reached, or answers something else than HTTP."""


class NodesDownError(Exception):
    """No node can be reached; the message names the last error."""


@dataclass(eq=False)
class Node:
    """One node with its idle connections; ``is_up`` is whether it answered last time."""

    host: str
    port: int
    prefix: bytes
    tls: ssl.SSLContext | None
    is_up: bool = True
    idle: list[Peer] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The host and port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A connection to a node for one exchange; ``is_reused`` is whether it carried others before."""

    node: Node
    peer: Peer
    is_reused: bool

    def end(self) -> None:
        """Put the connection back, or close it if the exchange is not complete."""
        if self.peer.is_reusable and not self.peer.is_stale:
            self.peer.http.start_next_cycle()
            self.node.idle.append(self.peer)
        else:
            self.peer.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request of the gateway."""

    status: int
    headers: Headers
    body: bytes


def node_of(address: Address) -> Node:
    """Return the node of an address; raises ValueError for certificates that do not exist."""
    from st_connectors._lucene.options import read_authorities

    authorities = read_authorities(address)
    tls = ssl.create_default_context(cafile=authorities) if "https" in address.variants else None
    return Node(address.host or "localhost", address.port or 9200, address.path.rstrip("/").encode(), tls)


class Upstream:
    """The nodes of one engine; of the event loop that uses it first."""

    def __init__(self, addresses: Sequence[Address], limits: Limits) -> None:
        """Store the nodes; no request is sent."""
        self.nodes = [node_of(address) for address in addresses]
        self._limits = limits
        self._turn = 0

    async def link(self) -> Link:
        """Return a connection to the next node that is up; raises NodesDownError if none can be reached."""
        problem: Exception | None = None
        for node in self._in_turn():
            while node.idle:
                peer = node.idle.pop()
                if not peer.is_stale:
                    return Link(node, peer, is_reused=True)
                peer.close()
            try:
                return Link(node, await self._connect(node), is_reused=False)
            except FAILURES as error:
                problem = error
                self._mark(node, is_up=False)
        raise NodesDownError(f"no node can be reached: {problem or type(problem).__name__}")

    def _in_turn(self) -> list[Node]:
        """Return the nodes beginning with the next one, those that are down last."""
        self._turn = (self._turn + 1) % len(self.nodes)
        return sorted(self.nodes[self._turn :] + self.nodes[: self._turn], key=lambda node: not node.is_up)

    async def _connect(self, node: Node) -> Peer:
        async with asyncio.timeout(self._limits.connect_s):
            reader, writer = await asyncio.open_connection(node.host, node.port, ssl=node.tls)
        return Peer(h11.CLIENT, reader, writer)

    def _mark(self, node: Node, *, is_up: bool) -> None:
        if node.is_up != is_up:
            logger.log(logging.INFO if is_up else logging.WARNING, "%s is %s", node.name, "up" if is_up else "down")
        node.is_up = is_up

    async def call(
        self, method: str, target: str, headers: Headers, body: bytes = b"", *, limit: int, timeout_s: float
    ) -> Answer:
        """Send a request of the gateway and return the whole answer; one that a node never read is sent again.

        Raises NodesDownError, TimeoutError, and ValueError for an answer of more than ``limit`` bytes.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                link = await self.link()
                try:
                    return await _exchange(link, (method, target, headers, body), limit)
                except (OSError, h11.RemoteProtocolError) as error:
                    if not link.is_reused:
                        raise NodesDownError(f"{link.node.name} closed the connection: {error}") from error
                finally:
                    link.end()

    async def check(self) -> None:
        """Ask every node for an answer, whatever it is, and mark those without one."""
        await asyncio.gather(*map(self._check, self.nodes))

    async def _check(self, node: Node) -> None:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                link = Link(node, await self._connect(node), is_reused=False)
                try:
                    answer = await _exchange(link, ("GET", "/", [], b""), CHECK_BYTES)
                finally:
                    link.end()
            self._mark(node, is_up=answer.status < 500)
        except (*FAILURES, ValueError):
            self._mark(node, is_up=False)

    async def watch(self) -> None:
        """Check the nodes again and again."""
        while True:
            with suppress(Exception):
                await self.check()
            await asyncio.sleep(self._limits.check_s)

    def close(self) -> None:
        """Close the idle connections."""
        for node in self.nodes:
            while node.idle:
                node.idle.pop().close()


async def _exchange(link: Link, request: tuple[str, str, Headers, bytes], limit: int) -> Answer:
    """Send a request, its method, target, headers and body, on a connection and return the whole answer."""
    node, peer = link.node, link.peer
    method, target, headers, body = request
    own = [(b"host", node.name.encode()), *headers, *([(b"content-length", b"%d" % len(body))] if body else [])]
    head = h11.Request(method=method.encode(), target=node.prefix + target.encode(), headers=own)
    await peer.send(head, *([h11.Data(data=body)] if body else []), h11.EndOfMessage())
    while isinstance(event := await peer.receive(), h11.InformationalResponse):
        pass
    if not isinstance(event, h11.Response):
        raise ConnectionError("the node closed the connection")
    return Answer(event.status_code, list(event.headers.raw_items()), await peer.body(limit))
