"""An HTTP server for tests that leaves neither connections nor threads behind when it closes.

    with Serving(Handler) as server:
        ...                                                    # connect to server.host, server.port

The servers of the standard library do not close the connections that clients keep open, whose threads go on, so that a
socket or an error of one test appears in another.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from contextlib import suppress
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler
from types import TracebackType
from typing import Any, Self

__all__ = ["Serving"]

POLL_S = 0.01
"""The interval at which the server looks whether it has to stop."""


class Serving(ThreadingHTTPServer):
    """A server on a loopback port, by default a free one, with a thread per connection.

    It serves from ``start`` to ``close``, or while its context is entered. With ``tls`` it terminates TLS.
    """

    daemon_threads = False  # so that server_close waits for them

    def __init__(self, handler: type[BaseRequestHandler], *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        """Listen; connections wait for ``start``."""
        self._tls = tls
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)
        self._serving = threading.Thread(target=self.serve_forever, args=(POLL_S,), name="test-server")

    @property
    def host(self) -> str:
        """The host on which the server listens."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port on which the server listens."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Serve until ``close``."""
        self._serving.start()

    def close(self) -> None:
        """Close all connections and wait for the threads."""
        self.shutdown()
        self._serving.join()
        self.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember a connection, and serve it in a thread.

        Headers and body of an answer are sent apart: with Nagle's algorithm the body waits up to 40 ms on Linux.
        """
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection; the TLS handshake comes with the first read, so that a silent client blocks no other."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.getpeername()  # raises if the client is gone: CPython 3.11 leaks a socket that it cannot wrap
        with self._lock:
            secured = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            self._connections.add(secured)
        try:
            super().finish_request(secured, client_address)
        finally:
            self.shutdown_request(secured)

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.discard(request)
        super().close_request(request)

    def server_close(self) -> None:
        """Stop listening, close all connections, and wait for their threads."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the client is gone
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnected, which is what tests of failures lead to; print other errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as in the standard library
