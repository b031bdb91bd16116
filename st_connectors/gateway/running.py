"""Run a gateway: its socket, its connections, and how it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from st_connectors.gateway.app import Gateway
from st_connectors.gateway.settings import Settings

__all__ = ["serve", "serving"]

BACKLOG = 1024
DRAIN_S = 30.0
"""The seconds that running requests have when the gateway stops."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Connection(asyncio.StreamReaderProtocol):
    """A connection whose request is cancelled when its client leaves, as the engines do."""

    def __init__(self, serve: Serve, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__(asyncio.StreamReader(), self._begin)
        self._serve = serve
        self._tasks = tasks
        self._answering: asyncio.Task[None] | None = None

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answering = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(self._answering)
        self._answering.add_done_callback(self._tasks.discard)

    def eof_received(self) -> bool | None:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        if self._answering is not None:
            self._answering.cancel()


def serve(settings: Settings, *, announce: Callable[[str], None] = lambda _address: None) -> None:
    """Pass requests on until SIGINT or SIGTERM; running requests are answered before the gateway stops.

    ``announce`` is called with the address. Raises OSError for an address that is in use.
    """
    with _listen(settings.host, settings.port) as listener:
        asyncio.run(_serve(settings, listener, announce, None))


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Run a gateway on a free port in a thread of this process, and yield its address.

    Host and port of the settings are not used.
    """
    begun = threading.Event()
    stops: list[Callable[[], object]] = []
    addresses: list[str] = []

    def announce(address: str) -> None:
        addresses.append(address)
        begun.set()

    def run() -> None:
        try:
            asyncio.run(_serve(settings, listener, announce, stops))
        finally:
            begun.set()

    with _listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=run, name="gateway")
        thread.start()
        begun.wait()
        try:
            if not addresses:
                raise RuntimeError("the gateway did not start")
            yield addresses[0]
        finally:
            for stop in stops:
                stop()
            thread.join()


async def _serve(
    settings: Settings,
    listener: socket.socket,
    announce: Callable[[str], None],
    stops: list[Callable[[], object]] | None,
) -> None:
    """Serve until a signal, or until the function that is added to ``stops`` is called from another thread."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    if stops is None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
    else:
        stops.append(partial(loop.call_soon_threadsafe, stopped.set))
    own = Gateway(settings)
    tasks: set[asyncio.Task[None]] = set()
    watching = asyncio.create_task(own.upstream.watch())
    server = await loop.create_server(lambda: _Connection(own.serve, tasks), sock=listener, backlog=BACKLOG)
    host, port = listener.getsockname()[:2]
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        await stopped.wait()
    finally:
        server.close()
        watching.cancel()
        await _drain(own, tasks)
        own.close()
        with suppress(asyncio.CancelledError):
            await watching


async def _drain(own: Gateway, tasks: set[asyncio.Task[None]]) -> None:
    """Wait for running requests, then end the connections."""
    own.is_stopping = True
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await own.idle()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise OSError with the address if it is in use."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    return listener
