"""Run a server: its socket, its processes, and how it stops."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from st_connectors.server.app import build_app
from st_connectors.server.keys import Keys
from st_connectors.server.logs import log_to_stderr
from st_connectors.server.service import Service
from st_connectors.server.settings import Settings
from st_core.errors import ModelError

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Http
else:
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Http
    except ImportError:  # httptools is not installed; it halves the time of HTTP itself
        from uvicorn.protocols.http.h11_impl import H11Protocol as _Http

__all__ = ["TLS_PASSWORD", "serve", "serving"]

TLS_PASSWORD = "ST_SERVER_TLS_PASSWORD"  # noqa: S105 - the name of a variable
"""The environment variable with the password of the private key."""

HEADER_BYTES = 65_536
"""The largest header of a request."""

BACKLOG = 2048
"""The number of connections that wait to be accepted."""

logger = logging.getLogger(__name__)


class _Config(uvicorn.Config):
    """The configuration of uvicorn, with the seconds in which a header must arrive, and in which answers are read."""

    header_s = 10.0
    read_s = 60.0


class _Protocol(_Http):
    """HTTP/1.1 that closes a connection whose client sends a header, or reads an answer, too slowly.

    uvicorn 0.54 waits for both for ever, and its faster protocol accepts headers of any size. At the limit of open
    connections it answers 503 to everyone; here a new connection replaces the oldest one without a request.
    """

    config: _Config

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.opened = self.loop.time()
        if len(self.connections) >= (self.config.limit_concurrency or math.inf):
            self._replace_idle()
        self._header = self._writing = self.loop.call_later(self.config.header_s, self._drop)
        self._header_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        was_idle = self._is_idle()
        super().data_received(data)
        if not self._is_idle():
            self._header.cancel()
            self._header_bytes = 0
            return
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES:
            self._drop()
        elif was_idle and self._header.cancelled():
            self._header = self.loop.call_later(self.config.header_s, self._drop)

    def _is_idle(self) -> bool:
        """Return whether no request is being answered, so that what arrives is the header of the next one."""
        return self.cycle is None or self.cycle.response_complete

    def _replace_idle(self) -> None:
        """Close the connection that has been open for the longest time, of those without a request in work."""
        idle = [each for each in self.connections if isinstance(each, _Protocol) and each is not self and each.is_free]
        if idle:
            oldest = min(idle, key=lambda each: each.opened)
            oldest.transport.close()
            self.connections.discard(oldest)  # at once, as uvicorn counts them

    @property
    def is_free(self) -> bool:
        """Whether the connection is open and no request is being answered."""
        return self._is_idle() and not self.transport.is_closing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self.config.read_s, self._abort)

    def resume_writing(self) -> None:
        self._writing.cancel()
        super().resume_writing()

    def _drop(self) -> None:
        self.transport.close()

    def _abort(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header.cancel()
        self._writing.cancel()
        super().connection_lost(exc)


def serve(settings: Settings, *, announce: Callable[[str], None] = lambda _address: None) -> None:
    """Serve until SIGINT or SIGTERM; running requests are answered before the server stops.

    ``announce`` is called with the address before models are loaded. Raises OSError for an address that is in use, and
    for missing files of TLS and keys, and the errors of loading models.
    """
    Keys(settings.key_file)
    _check_tls(settings)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls else "http"
    with listener:
        announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        if settings.workers > 1:
            _serve_in_processes(settings, listener)
        else:
            _serve_here(settings, listener)


def _serve_in_processes(settings: Settings, listener: socket.socket) -> None:
    supervisor = Multiprocess(_config(settings, partial(_worker_app, settings), factory=True), [listener])
    supervisor.run()
    if any(each.exitcode == STARTUP_FAILURE for each in supervisor.processes):
        raise ModelError("a process cannot load its models: the lines above say why")


def _serve_here(settings: Settings, listener: socket.socket) -> None:
    service = Service(settings)
    servers: list[uvicorn.Server] = []

    def stop_if_failed() -> None:
        servers[0].should_exit |= service.error is not None

    app = build_app(service, Keys(settings.key_file), loaded=stop_if_failed)
    servers.append(uvicorn.Server(_config(settings, app)))
    try:
        servers[0].run(sockets=[listener])
    finally:
        service.close()
    if service.error is not None:
        raise service.error


@contextmanager
def serving(settings: Settings | None = None) -> Iterator[str]:
    """Serve on a free port in a thread of this process, and yield the address when the models are loaded.

    Host, port and workers of the settings are not used. Raises the errors of loading models.
    """
    settings = Settings(access_log=False) if settings is None else settings
    service = Service(settings)
    loaded = threading.Event()
    app = build_app(service, Keys(settings.key_file), loaded=loaded.set)
    server = uvicorn.Server(_config(settings, app))
    with _listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="serving")
        thread.start()
        try:
            loaded.wait()
            if service.error is not None:
                raise service.error
            yield f"{'https' if settings.tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            service.close()


def _worker_app(settings: Settings) -> ASGIApp:
    """Return the application of one of several processes; a model that cannot be loaded ends the process."""
    log_to_stderr()
    service = Service(settings)

    def exit_if_failed() -> None:
        if service.error is not None:
            logger.error("a model cannot be loaded: %s", service.error)
            os._exit(STARTUP_FAILURE)  # the supervisor stops for this status

    return build_app(service, Keys(settings.key_file), loaded=exit_if_failed)


def _config(settings: Settings, app: Any, *, factory: bool = False) -> _Config:
    limits = settings.limits
    config = _Config(
        app,
        factory=factory,
        workers=settings.workers,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        backlog=BACKLOG,
        timeout_keep_alive=int(limits.idle_s),
        timeout_graceful_shutdown=int(limits.drain_s),
        ssl_certfile=settings.tls.certificate if settings.tls else None,
        ssl_keyfile=settings.tls.key if settings.tls else None,
        ssl_keyfile_password=os.environ.get(TLS_PASSWORD),
    )
    config.header_s, config.read_s = limits.header_s, limits.body_s
    return config


def _check_tls(settings: Settings) -> None:
    """Raise OSError for a file that cannot be read."""
    if settings.tls is None:
        return
    for path in filter(None, (settings.tls.certificate, settings.tls.key)):
        with Path(path).open("rb"):
            pass


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise OSError with the address if it is in use."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)  # so that clients can connect as soon as the address is printed
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    listener.set_inheritable(True)
    return listener
