"""What the gateway passes through: the bytes of requests and answers, as without it."""

from __future__ import annotations

import gzip
import json
import socket
import threading

import pytest
from stub_nodes import CHECKED, Connection, ok, raw_node, talk

pytest.importorskip("h11", reason="needs the extra server")
pytest.importorskip("elasticsearch", reason="needs the extra elasticsearch")

from st_connectors.gateway import Limits, Settings, serving

LIMITS = Limits(check_s=3600, connect_s=5)


def through(*ports: int):
    """Return a gateway in front of nodes."""
    return serving(Settings(tuple(f"elasticsearch://127.0.0.1:{port}" for port in ports), limits=LIMITS))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def connected(address: str) -> socket.socket:
    """Return a connection to a gateway."""
    return socket.create_connection(("127.0.0.1", port_of(address)), timeout=30)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


GET = (
    b"GET /_cat/indices?v=true HTTP/1.1\r\nHost: es:9200\r\nX-Opaque-Id: Ab1\r\nAccept: */*\r\n"
    b"Connection: close\r\n\r\n"
)
POST = (
    b"POST /books/_count HTTP/1.1\r\nHost: es:9200\r\nContent-Type: application/json\r\n"
    b"Authorization: Basic eA==\r\nContent-Length: 12\r\nConnection: close\r\n\r\n" + b'{"query":{}}'
)
CHUNKED = (
    b"POST /books/_count HTTP/1.1\r\nHost: es:9200\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"5\r\n01234\r\n3\r\nabc\r\n0\r\n\r\n"
)
PACKED = gzip.compress(b'{"query":{"match_all":{}}}')
GZIP = (
    b"POST /books/_search HTTP/1.1\r\nHost: es:9200\r\nContent-Encoding: gzip\r\nAccept-Encoding: gzip\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(PACKED) + PACKED
)
LARGE = b"PUT /_snapshot/x HTTP/1.1\r\nHost: es\r\nContent-Length: 300000\r\nConnection: close\r\n\r\n" + b"x" * 300_000
HEAD = b"HEAD /books HTTP/1.1\r\nHost: es:9200\r\nConnection: close\r\n\r\n"

ANSWERS = {
    "plain": ok(b'{"a":1}', b"X-elastic-product: Elasticsearch", b"Content-Type: application/json"),
    "gzip": ok(gzip.compress(b"{}"), b"content-encoding: gzip"),
    "html": b"HTTP/1.1 503 Out Of Order\r\nServer: nginx\r\ncontent-length: 13\r\n\r\n<html></html>",
    "empty": b"HTTP/1.1 204 No Content\r\nX-Thing: 1\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n",
    "large": ok(b"y" * 400_000),
}


def without_connection(message: bytes) -> bytes:
    """Return a message without the header that concerns one connection only."""
    head, _, body = message.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("request_bytes", [GET, POST, GZIP, LARGE], ids=["get", "post", "gzip", "large"])
def test_requests_and_answers_are_the_same_bytes(request_bytes, answer):
    """A node receives, and a client reads, the same bytes with and without a gateway."""
    with raw_node(lambda _: ANSWERS[answer]) as node, through(node.port) as gateway:
        own = talk(port_of(gateway), request_bytes)

        assert without_connection(own) == ANSWERS[answer]
        assert node.requests == [without_connection(request_bytes)]


def test_chunks_of_a_request_arrive_as_they_were_sent():
    """A body without a length is passed on without one."""
    with raw_node(lambda _: ok()) as node, through(node.port) as gateway:
        talk(port_of(gateway), CHUNKED)

        [request] = node.requests
        head, _, body = request.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert b"".join(body.split(b"\r\n")[1::2]) == b"01234abc"


def test_answer_to_head_has_a_length_and_no_body():
    """The length that a node announces to HEAD reaches the client, which does not wait for a body."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 250\r\n\r\n"
    with raw_node(lambda _: head) as node, through(node.port) as gateway:
        assert without_connection(talk(port_of(gateway), HEAD)) == head
        assert len(node.requests) == 1


def test_connections_are_kept_on_both_sides():
    """Requests of one client connection use one connection to the node, each with its own answer."""
    with raw_node(lambda request: ok(request.split()[1])) as node, through(node.port) as gateway:
        requests = [b"GET /_cat/%d HTTP/1.1\r\nHost: es\r\n\r\n" % number for number in range(3)]
        requests.append(b"GET /_cat/3 HTTP/1.1\r\nHost: es\r\nConnection: close\r\n\r\n")
        answer = talk(port_of(gateway), *requests)

        bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [b"/_cat/0", b"/_cat/1", b"/_cat/2", b"/_cat/3"]
        assert len(node.requests) == 4
        assert node.connections <= 2  # one is that of the check of the nodes


def test_permission_to_send_a_body_comes_from_the_node():
    """``Expect: 100-continue`` is passed on, and so is the node's answer to it."""

    def serve(connection: Connection) -> None:
        head = connection.read_head()
        if head.startswith(b"GET / "):
            connection.send(CHECKED)
            return
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(ok(connection.read_bytes(4)))

    request = b"PUT /_x HTTP/1.1\r\nHost: es\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with raw_node(serve=serve) as node, through(node.port) as gateway, connected(gateway) as client:
        client.sendall(request)
        first = client.recv(1000)
        client.sendall(b"body")
        second = client.recv(1000)

    assert first.startswith(b"HTTP/1.1 100 ")
    assert second.endswith(b"body")


def test_node_can_refuse_before_the_body_has_arrived():
    """An answer that comes before the end of the body reaches the client, and the connection ends."""

    def serve(connection: Connection) -> None:
        head = connection.read_head()
        if head.startswith(b"GET / "):
            connection.send(CHECKED)
            return
        connection.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        while connection.socket.recv(65536):
            pass

    request = b"PUT /_x HTTP/1.1\r\nHost: es\r\nContent-Length: 900000\r\n\r\n" + b"x" * 70_000
    with raw_node(serve=serve) as node, through(node.port) as gateway:
        answer = talk(port_of(gateway), request, until=lambda data: b"\r\n\r\n" in data)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_answer_is_streamed():
    """The client reads the first part of an answer before the node sends the second."""
    may_finish = threading.Event()

    def serve(connection: Connection) -> None:
        if connection.read_head().startswith(b"GET / "):
            connection.send(CHECKED)
            return
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        may_finish.wait(30)
        connection.send(b"later")

    with raw_node(serve=serve) as node, through(node.port) as gateway, connected(gateway) as client:
        client.sendall(GET)
        answer = b""
        while not answer.endswith(b"first"):
            answer += client.recv(1000)
        may_finish.set()
        while data := client.recv(1000):
            answer += data

    assert answer.endswith(b"firstlater")


def test_connection_to_the_node_ends_when_the_client_leaves():
    """A client that leaves while it waits ends the request on the node, as without a gateway."""
    begun, ended = threading.Event(), threading.Event()

    def serve(connection: Connection) -> None:
        if connection.read_head().startswith(b"GET / "):
            connection.send(CHECKED)
            return
        begun.set()
        if not connection.socket.recv(1):
            ended.set()

    with raw_node(serve=serve) as node, through(node.port) as gateway:
        with connected(gateway) as client:
            client.sendall(GET)
            assert begun.wait(30)
        assert ended.wait(30)


def test_cut_off_answer_is_not_completed():
    """If a node is lost in the middle of an answer, the connection of the client is cut off too."""

    def serve(connection: Connection) -> None:
        if connection.read_head().startswith(b"GET / "):
            connection.send(CHECKED)
        else:
            connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")

    with raw_node(serve=serve) as node, through(node.port) as gateway:
        assert talk(port_of(gateway), GET).endswith(b"\r\n\r\nfirst")


def test_pause_in_a_body_ends_the_request_on_the_node():
    """A client that stops in the middle of a body does not hold a connection to the node for ever."""
    ended = threading.Event()

    def serve(connection: Connection) -> None:
        if connection.read_head().startswith(b"GET / "):
            connection.send(CHECKED)
            return
        while connection.socket.recv(65536):
            pass
        ended.set()

    limits = Limits(check_s=3600, pause_s=0.05)
    request = b"PUT /_x HTTP/1.1\r\nHost: es\r\nContent-Length: 900000\r\n\r\nabc"
    with raw_node(serve=serve) as node:
        settings = Settings((f"elasticsearch://127.0.0.1:{node.port}",), limits=limits)
        with serving(settings) as gateway, connected(gateway) as client:
            client.sendall(request)
            assert ended.wait(30)
            client.settimeout(30)
            while client.recv(1000):
                pass


def test_client_that_does_not_read_is_dropped():
    """The answer of a node is no longer read then, and its connection ends."""
    ended = threading.Event()

    def serve(connection: Connection) -> None:
        if connection.read_head().startswith(b"GET / "):
            connection.send(CHECKED)
            return
        try:
            connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            while True:
                connection.send(bytes(1_000_000))
        except OSError:
            ended.set()

    limits = Limits(check_s=3600, pause_s=0.05)
    with raw_node(serve=serve) as node:
        settings = Settings((f"elasticsearch://127.0.0.1:{node.port}",), limits=limits)
        with serving(settings) as gateway, connected(gateway) as client:
            client.sendall(GET)
            assert ended.wait(30)


def error_of(answer: bytes) -> dict:
    """Return the body of an answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_node_that_is_down_is_named():
    """Without a node the answer is 502 in the form of the engine, with the product that clients check."""
    with through(unused_port()) as gateway:
        answer = talk(port_of(gateway), GET)

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"X-elastic-product: Elasticsearch" in answer
    assert error_of(answer)["error"]["type"] == "st_connectors_gateway_exception"
    assert "no node can be reached" in error_of(answer)["error"]["reason"]


def test_another_node_answers_for_one_that_is_down():
    """All requests reach the node that is up, and the state of the gateway names the other."""
    down = unused_port()
    with raw_node(lambda _: ok()) as node, through(down, node.port) as gateway:
        answers = [talk(port_of(gateway), GET) for _ in range(4)]
        state = error_of(
            talk(port_of(gateway), b"GET /_st_connectors/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        )

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert state == {"status": "up", "nodes": {f"127.0.0.1:{down}": "down", f"127.0.0.1:{node.port}": "up"}}


@pytest.mark.parametrize(("method", "expected"), [(b"GET", b"200"), (b"POST", b"502")])
def test_lost_idle_connection(method, expected):
    """If a node closes an idle connection as a request arrives, a request that changes nothing is sent again."""
    served: list[bytes] = []

    def serve(connection: Connection) -> None:
        while request := connection.read():
            if request.startswith(b"GET / "):
                connection.send(CHECKED)
                return
            served.append(request)
            if len(served) == 2:
                return
            connection.send(ok())

    request = method + b" /_cat/x HTTP/1.1\r\nHost: es\r\n\r\n"
    last = method + b" /_cat/x HTTP/1.1\r\nHost: es\r\nConnection: close\r\n\r\n"
    with raw_node(serve=serve) as node, through(node.port) as gateway:
        answer = talk(port_of(gateway), request, last)

    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", expected]


@pytest.mark.parametrize(
    "request_bytes",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"],
    ids=["no http", "two lengths"],
)
def test_malformed_request_is_refused(request_bytes):
    """What is not HTTP, or could be read in two ways, never reaches a node."""
    with raw_node(lambda _: ok()) as node, through(node.port) as gateway:
        answer = talk(port_of(gateway), request_bytes)

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert not node.requests


def test_chunks_beside_a_length_reach_the_node_as_chunks():
    """A request with both ways to tell its end is passed on with one, so that node and gateway agree."""
    request = CHUNKED.replace(b"Transfer-Encoding", b"Content-Length: 3\r\nTransfer-Encoding")
    with raw_node(lambda _: ok()) as node, through(node.port) as gateway:
        talk(port_of(gateway), request)

        assert b"content-length" not in node.requests[0].lower()


def test_header_that_never_ends_is_refused():
    """A header of more than 64 KiB ends the connection."""
    endless = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: " + b"a" * 70_000
    with raw_node(lambda _: ok()) as node, through(node.port) as gateway:
        assert talk(port_of(gateway), endless).startswith(b"HTTP/1.1 431 ")
