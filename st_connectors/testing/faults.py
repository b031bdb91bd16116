"""An HTTP proxy on the loopback interface that injects the faults of servers, load balancers and networks.

    with FaultProxy(upstream=("127.0.0.1", 9200)) as proxy:
        proxy.order(Answer(429, retry_after=2), Reset())       # faults of the next two requests; later ones pass
        ...                                                    # connect to proxy.host, proxy.port
        assert len(proxy.seen) == 3

A campaign against a real server uses random faults and outages:

        proxy.mix(seed, {Pass(): 90, Reset(): 3, CutOff(): 3, (Answer(429, retry_after=0.1),) * 5: 1})
        with proxy.refusing():                                 # nothing listens, then the same port listens again
            ...
        print(proxy.injected)                                  # how often each fault was injected

Only ``Delay`` takes its time in seconds; other delayed responses wait for ``release`` or for the client to disconnect,
for at most ``HOLD_LIMIT`` seconds. With ``tls`` the proxy terminates TLS, and with ``admits`` it requires an
``Authorization`` header, for a server that does neither.
"""

from __future__ import annotations

import http.client
import random
import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import repeat
from types import TracebackType
from typing import Self, TypeAlias, assert_never

from st_connectors.testing.serving import Serving

__all__ = [
    "Answer",
    "BlackHole",
    "CutOff",
    "Delay",
    "Fault",
    "FaultProxy",
    "Hold",
    "Pass",
    "Reset",
    "Seen",
    "Truncate",
    "random_faults",
    "refused_port",
]

HOLD_LIMIT = 60.0
"""Seconds; only a test that fails waits for so long."""
POLL_S = 0.02
"""The interval at which a delayed response looks whether it is released."""
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"})


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward the request to the server, and its response to the client."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Respond without forwarding the request to the server."""

    status: int
    body: bytes = b'{"status": {"error": "made to fail"}}'
    retry_after: float | str | None = None
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reset:
    """Forward the request, send ``after`` bytes of the response, and reset the connection."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Truncate:
    """Forward the request, announce the full length of the response, send half of it, and close the connection."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Forward the request, and delay the response until ``release`` or until the client disconnects."""


@dataclass(frozen=True, slots=True)
class CutOff:
    """Forward the request, and send half of the body of the response as a complete one, with its length."""


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Read the request, forward nothing, and send no response until the client disconnects."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Forward the request, and send the response after some seconds of real time; for campaigns, not for tests."""

    seconds: float


Fault: TypeAlias = Pass | Answer | Reset | Truncate | CutOff | Hold | BlackHole | Delay


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the proxy."""

    method: str
    path: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def refused_port() -> int:
    """Return a loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def random_faults(seed: int, weights: Mapping[Fault | tuple[Fault, ...], float]) -> Iterator[Fault]:
    """Yield random faults without end, the same for the same seed.

    Each choice is proportional to its weight. A tuple is a storm: its faults follow each other.
    """
    generator = random.Random(seed)  # noqa: S311  # not for secrets
    while True:
        (choice,) = generator.choices(list(weights), list(weights.values()))
        yield from choice if isinstance(choice, tuple) else (choice,)


class FaultProxy:
    """A proxy in front of a server; without a server it responds 404 unless a fault is set."""

    def __init__(
        self,
        upstream: tuple[str, int] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        admits: str | None = None,
    ) -> None:
        """Listen on a free loopback port; serving starts when the context is entered.

        ``admits`` is the required ``Authorization`` header; other requests get status 401 and are not forwarded.
        """
        self.seen: list[Seen] = []
        self.injected: Counter[Fault] = Counter()
        """How many requests each fault was injected into; ``Pass()`` counts the others."""
        self._upstream = upstream
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._orders: deque[Fault] = deque()
        self._others: Iterator[Fault] = repeat(Pass())
        self._only: Callable[[Seen], bool] = lambda _: True
        self._released = threading.Event()
        self._tls = tls
        self._reserved = _reserve_port()
        self._server = self._listen()
        self._admits = admits

    def _listen(self) -> _Server:
        server = _Server(_Handler, tls=self._tls, port=int(self._reserved.getsockname()[1]))
        server.proxy = self
        return server

    @property
    def host(self) -> str:
        """The host on which the proxy listens."""
        return self._server.host

    @property
    def port(self) -> int:
        """The port on which the proxy listens."""
        return self._server.port

    def order(self, *faults: Fault, only: Callable[[Seen], bool] = lambda _: True) -> None:
        """Inject these faults into the next requests for which ``only`` is true, one each; all others pass."""
        with self._lock:
            self._orders = deque(faults)
            self._only = only

    def always(self, fault: Fault) -> None:
        """Inject this fault into every request that has no ordered fault."""
        with self._lock:
            self._others = repeat(fault)

    def mix(self, seed: int, weights: Mapping[Fault | tuple[Fault, ...], float]) -> None:
        """Inject ``random_faults`` into the requests that have no ordered fault, in the order of their arrival."""
        with self._lock:
            self._others = random_faults(seed, weights)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Close all connections and refuse new ones during the block; then listen on the same port again."""
        self._server.close()
        try:
            yield
        finally:
            self._server = self._listen()
            self._server.start()

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait until a condition on ``seen`` is true; raise TimeoutError after ``HOLD_LIMIT`` seconds."""
        with self._arrived:
            if not self._arrived.wait_for(until, HOLD_LIMIT):
                raise TimeoutError(f"no matching request within {HOLD_LIMIT} s")

    def release(self) -> None:
        """Send delayed responses, now and from now on."""
        self._released.set()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.close()
        self._reserved.close()

    def _next(self, seen: Seen, authorization: str | None) -> Fault:
        with self._lock:
            self.seen.append(seen)
            self._arrived.notify_all()
            if self._admits not in (None, authorization):
                return Answer(401, b'{"error": {"type": "security_exception", "reason": "unable to authenticate"}}')
            is_ordered = self._orders and self._only(seen)
            fault = self._orders.popleft() if is_ordered else next(self._others)
            self.injected[fault] += 1
            return fault

    def _pause(self, connection: socket.socket, seconds: float) -> None:
        """Wait for the release, or until the client disconnects, for at most some seconds."""
        until = time.monotonic() + seconds
        while not self._released.is_set() and (left := until - time.monotonic()) > 0:
            if select.select([connection], [], [], min(left, POLL_S))[0]:
                return  # a client that waits for a response sends nothing else

    def _forward(self, seen: Seen, headers: list[tuple[str, str]]) -> _Reply:
        """Forward a request and return the server's response."""
        if self._upstream is None:
            return _Reply(404, [("Content-Type", "application/json")], b'{"status": {"error": "there is no server"}}')
        connection = http.client.HTTPConnection(*self._upstream, timeout=HOLD_LIMIT)
        try:
            connection.putrequest(seen.method, seen.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(seen.body)))
            connection.endheaders(seen.body)
            answer = connection.getresponse()
            body = answer.read()
            return _Reply(answer.status, answer.getheaders(), body)
        finally:
            connection.close()


def _reserve_port() -> socket.socket:
    """Return a socket that is bound to a free loopback port, so that no other program gets it while nothing listens."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


class _Server(Serving):
    proxy: FaultProxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
        """Log nothing."""

    def _serve(self) -> None:
        proxy = self.server.proxy
        seen = Seen(self.command, self.path, self._body())
        match proxy._next(seen, self.headers.get("Authorization")):  # noqa: SLF001  # handler and proxy belong together
            case Pass():
                self._reply(self._forward(seen))
            case Answer(status, body, retry_after, content_type, more):
                headers = [("Content-Type", content_type), *more]
                if retry_after is not None:
                    headers.append(("Retry-After", str(retry_after)))
                self._reply(_Reply(status, headers, body))
            case Reset(after):
                reply = self._forward(seen)
                self._reply(reply, send=min(after, len(reply.body)), headers=after > 0)
                linger = struct.pack("ii", 1, 0)  # closing with a linger of zero seconds sends RST instead of FIN
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()
            case Truncate():
                reply = self._forward(seen)
                self._reply(reply, send=len(reply.body) // 2)
                self.close_connection = True
            case CutOff():
                reply = self._forward(seen)
                self._reply(_Reply(reply.status, reply.headers, reply.body[: len(reply.body) // 2]))
            case Hold():
                reply = self._forward(seen)
                proxy._pause(self.connection, HOLD_LIMIT)  # noqa: SLF001
                self._reply(reply)
            case BlackHole():
                proxy._pause(self.connection, HOLD_LIMIT)  # noqa: SLF001
                self.close_connection = True
            case Delay(seconds):
                reply = self._forward(seen)
                proxy._pause(self.connection, seconds)  # noqa: SLF001
                self._reply(reply)
            case other:
                assert_never(other)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = _serve  # noqa: N815  # the standard library's names

    def _forward(self, seen: Seen) -> _Reply:
        return self.server.proxy._forward(seen, list(self.headers.items()))  # noqa: SLF001

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, reply: _Reply, *, send: int | None = None, headers: bool = True) -> None:
        """Send a response with ``send`` bytes of its body, with or without status line and headers."""
        if headers:
            self.send_response(reply.status)
            for name, value in reply.headers:
                if name.lower() not in _HOP_BY_HOP | {"server", "date"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[:send])
        self.wfile.flush()
