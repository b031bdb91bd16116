"""The gateway: connections of clients, and where their requests go."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import h11

from st_connectors.gateway.answers import Problem
from st_connectors.gateway.encoding import CLIENT
from st_connectors.gateway.exchanges import AnsweredError, Exchange
from st_connectors.gateway.passing import pass_on
from st_connectors.gateway.peers import Headers, Peer
from st_connectors.gateway.routes import Kind
from st_connectors.gateway.searches import Searches
from st_connectors.gateway.settings import Settings, addresses_of
from st_connectors.gateway.targets import Targets
from st_connectors.gateway.upstream import Answer, NodesDownError, Upstream
from st_connectors.gateway.writes import Writes

__all__ = ["Gateway"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

THREADS = 16
"""The number of threads that add vectors and search; models compute on threads of their own."""
_ENDED = (AnsweredError, OSError, h11.ProtocolError)
"""What ends a connection without an answer."""


class Gateway:
    """A gateway in an event loop; ``close`` it at the end."""

    def __init__(self, settings: Settings) -> None:
        """Store the settings; no request is sent."""
        addresses = addresses_of(settings.nodes)
        limits = settings.limits
        self.settings = settings
        self.engine = addresses[0].name
        self.upstream = Upstream(addresses, limits)
        self._pool = ThreadPoolExecutor(THREADS, "gateway")
        self._reading = asyncio.Semaphore(limits.rewriting)
        self._targets = Targets(settings, addresses[0], self._call, self._run)
        self._writes = Writes(self.upstream, self._targets, limits, self._run)
        self._searches = Searches(self.upstream, self._targets, limits, self._run)
        self.is_stopping = False
        self._connections = 0
        self._running = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, one after the other."""
        client = Peer(h11.SERVER, reader, writer, pause_s=self.settings.limits.pause_s)
        CLIENT.set(str(writer.get_extra_info("peername")))
        self._connections += 1
        try:
            if self._connections <= self.settings.limits.connections:
                await self._serve(client)
        except _ENDED as error:
            logger.debug("a connection ended: %s", error)
        finally:
            self._connections -= 1
            client.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, client: Peer) -> None:
        """Answer requests until the connection ends, or an answer left a part of its request unread."""
        while (exchange := await self._next(client)) is not None:
            self._running += 1
            self._is_idle.clear()
            try:
                await self._answer(exchange)
            except Problem as problem:
                await self._refuse(exchange, problem)
            except NodesDownError as error:
                await self._refuse(exchange, Problem(502, "st_connectors_gateway_exception", str(error)))
            except _ENDED:
                raise
            except Exception:
                logger.exception("a request failed")
                await self._refuse(exchange, Problem(500, "st_connectors_gateway_exception", "a bug in the gateway"))
            finally:
                self._running -= 1
                if not self._running:
                    self._is_idle.set()
            if not client.is_reusable or self.is_stopping:
                return
            client.http.start_next_cycle()

    async def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        await exchange.drain(self.settings.limits.bulk_bytes)
        await exchange.refuse(problem)

    async def _next(self, client: Peer) -> Exchange | None:
        """Return the next request, None at the end; once its header has begun, it must arrive in time."""
        try:
            while (event := client.ready()) is None:
                has_begun = bool(client.http.trailing_data[0])
                async with asyncio.timeout(self.settings.limits.header_s if has_begun else None):
                    await client.read()
        except h11.RemoteProtocolError as error:
            request = h11.Request(method="GET", target="/", headers=[("host", "client")])
            problem = Problem(error.error_status_hint, "illegal_argument_exception", str(error))
            await Exchange(client, request, self.engine).refuse(problem)
            return None
        return Exchange(client, event, self.engine) if isinstance(event, h11.Request) else None

    async def _answer(self, exchange: Exchange) -> None:
        route = exchange.route
        match route.kind:
            case Kind.PASS:
                await pass_on(self.upstream, exchange)
                if route.changes_indices:
                    self._targets.forget()
            case Kind.HEALTH:
                await self._health(exchange)
            case Kind.BULK:
                async with self._reading:
                    await self._writes.bulk(exchange)
            case Kind.WRITE:
                await self._write(exchange)
            case Kind.SEARCH | Kind.MULTI_SEARCH:
                async with self._reading:
                    await self._searches.search(exchange)

    async def _write(self, exchange: Exchange) -> None:
        target = await self._targets.of(exchange.route.index or "", exchange.credentials)
        if target is None:
            await pass_on(self.upstream, exchange)
            return
        async with self._reading:
            await self._writes.document(exchange, target)

    async def _health(self, exchange: Exchange) -> None:
        """Answer which nodes answered last time; 503 if none did."""
        nodes = {node.name: "up" if node.is_up else "down" for node in self.upstream.nodes}
        is_up = "up" in nodes.values()
        await exchange.read(self.settings.limits.whole_bytes)
        await exchange.respond(200 if is_up else 503, {"status": "up" if is_up else "down", "nodes": nodes})

    async def _call(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        """Send a request of the gateway itself."""
        limits = self.settings.limits
        return await self.upstream.call(
            method, target, headers, body, limit=limits.bulk_bytes, timeout_s=limits.timeout_s
        )

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._is_idle.wait()

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a thread."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, function, *arguments)

    def close(self) -> None:
        """Stop the models and the threads, and close the connections."""
        self._targets.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.upstream.close()
