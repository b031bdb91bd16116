"""Nodes for tests of the gateway: one that answers prepared bytes, and one that stores documents."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Respond = Callable[["Connection"], None]


@dataclass
class Connection:
    """A connection to a node: ``read`` returns a request, and ``send`` sends bytes."""

    socket: socket.socket
    rest: bytes = b""

    def read_head(self) -> bytes:
        """Return the bytes up to the end of a header; empty at the end of the connection."""
        return self._read_until(b"\r\n\r\n")

    def read(self) -> bytes:
        """Return a request with its body, in the bytes in which it arrived."""
        head = self.read_head()
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return head + self._read_until(b"0\r\n\r\n")
        length = next((int(x.split(b":")[1]) for x in lower.split(b"\r\n") if x.startswith(b"content-length:")), 0)
        return head + self.read_bytes(length)

    def read_bytes(self, count: int) -> bytes:
        while len(self.rest) < count and (data := self.socket.recv(65536)):
            self.rest += data
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _read_until(self, end: bytes) -> bytes:
        while end not in self.rest:
            data = self.socket.recv(65536)
            if not data:
                return b""
            self.rest += data
        at = self.rest.index(end) + len(end)
        taken, self.rest = self.rest[:at], self.rest[at:]
        return taken


@dataclass
class RawNode:
    """A node that answers each connection by a function; checks of the gateway (``GET /``) are answered apart."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


@contextmanager
def raw_node(respond: Callable[[bytes], bytes] | None = None, *, serve: Respond | None = None) -> Iterator[RawNode]:
    """Run a node on a free port: ``respond`` returns the answer to a request, or ``serve`` serves a connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    node = RawNode(listener.getsockname()[1])
    open_sockets: list[socket.socket] = []

    def handle(accepted: socket.socket) -> None:
        connection = Connection(accepted)
        with accepted:
            try:
                if serve is not None:
                    serve(connection)
                    return
                assert respond is not None
                while request := connection.read():
                    if not request.startswith(b"GET / "):
                        node.requests.append(request)
                    connection.send(respond(request))
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            node.connections += 1
            open_sockets.append(accepted)
            threading.Thread(target=handle, args=(accepted,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in open_sockets:
            each.close()
        thread.join()


def ok(body: bytes = b"{}", *headers: bytes) -> bytes:
    """Return an answer with a body."""
    head = [b"HTTP/1.1 200 OK", *headers, b"content-length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


CHECKED = ok(b"{}", b"connection: close")
"""The answer to a check of the gateway on a connection that serves one request, so that no other is sent on it."""


def talk(port: int, *requests: bytes, until: Callable[[bytes], bool] | None = None) -> bytes:
    """Send bytes on one connection and return the bytes of the answer, up to its end or until a condition holds."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for request in requests:
            client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
            if until is not None and until(answer):
                break
        return answer


@dataclass
class StoringNode:
    """A node with mappings that answers writes; ``documents`` contains the sources, ``bulks`` the bodies."""

    port: int = 0
    mappings: dict[str, Any] = field(default_factory=dict)
    documents: dict[tuple[str, str], Any] = field(default_factory=dict)
    bulks: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    """The status that a path is answered with."""
    bulk_statuses: list[int] = field(default_factory=list)
    """The statuses of the next bulk requests."""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the body of an answer."""
        route = path.partition("?")[0]
        if route in self.statuses:
            return self.statuses[route], {"error": {"type": "stub_exception", "reason": "as prepared"}}
        parts = [unquote(part) for part in route.split("/") if part]
        match parts:
            case []:
                return 200, {"version": {"number": "9.5.3"}, "tagline": "You Know, for Search"}
            case [index, "_mapping"]:
                known = {index: {"mappings": self.mappings[index]}} if index in self.mappings else None
                return (200, known) if known else (404, {"error": {"type": "index_not_found_exception"}})
            case ["_bulk"] | [_, "_bulk"]:
                return self._bulk(body, parts[0] if len(parts) == 2 else None)
            case [_, "_pit"]:
                return 200, {"id": "place"}
            case ["_search"]:
                return 200, {"pit_id": "place", "hits": {"hits": []}}
            case [index, "_doc" | "_create", identifier]:
                self.documents[index, identifier] = json.loads(body)
                return 201, {"_index": index, "_id": identifier, "result": "created"}
            case [index, "_update", identifier]:
                self.documents[index, identifier] = json.loads(body)
                return 200, {"_index": index, "_id": identifier, "result": "updated"}
            case _:
                return 200, {"acknowledged": True, "_shards": {"total": 1, "successful": 1, "failed": 0}}

    def _bulk(self, body: bytes, default: str | None) -> tuple[int, Any]:
        self.bulks.append(body)
        if self.bulk_statuses and (status := self.bulk_statuses.pop(0)) != 200:
            return status, {"error": {"type": "stub_exception", "reason": "as prepared"}, "status": status}
        if not body.endswith(b"\n"):
            return 400, {"error": {"type": "illegal_argument_exception", "reason": "must be terminated by a newline"}}
        items = []
        lines = iter(line for line in body.split(b"\n") if line)
        for line in lines:
            try:
                [(action, metadata)] = json.loads(line).items()
            except ValueError:
                return 400, {"error": {"type": "x_content_parse_exception", "reason": "malformed"}, "status": 400}
            index = metadata.get("_index", default)
            if action != "delete":
                self.documents[index, str(metadata.get("_id"))] = json.loads(next(lines))
            items.append({action: {"_index": index, "_id": metadata.get("_id"), "status": 200}})
        return 200, {"errors": False, "took": 1, "items": items}


@contextmanager
def storing_node(**mappings: Any) -> Iterator[StoringNode]:
    """Run a node with mappings by index."""
    node = StoringNode(mappings=dict(mappings))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._body()
            node.paths.append(f"{self.command} {self.path}")
            node.headers.append(dict(self.headers))
            status, answer = node.answer(self.command, self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("X-elastic-product", "Elasticsearch")
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self) -> bytes:
            if "chunked" in self.headers.get("transfer-encoding", ""):
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
            return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    node.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
