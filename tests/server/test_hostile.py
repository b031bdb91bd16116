"""Clients that are slow, or send too much, are refused or dropped, and others are served meanwhile."""

from __future__ import annotations

import gzip
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from served import running

pytest.importorskip("fastapi", reason="needs the extra server")

HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
ATTACKERS = 20
GIGABYTE = 10**9


@pytest.fixture(scope="module")
def guarded():
    """A server with less patience."""
    from st_connectors.server.settings import Limits, Settings

    limits = Limits(connections=2 * ATTACKERS, body_bytes=100_000, header_s=0.5, body_s=0.5)
    with running(Settings(limits=limits, access_log=False)) as started:
        yield started


def repeated(first: bytes, part: bytes) -> Iterator[bytes]:
    """Yield what begins a request, then a part of it until a gigabyte is sent."""
    yield first
    for _ in range(GIGABYTE // len(part)):
        yield part


def one_by_one(first: bytes, part: bytes) -> Iterator[bytes]:
    """Yield what begins a request, then a part of it every few milliseconds."""
    yield first
    while True:
        threading.Event().wait(0.02)
        yield part


BOMB = gzip.compress(bytes(3 * 10**7), 1)[:90_000]
LARGE = b'{"inputs": ["' + b'a","' * 2000 + b'a"]}'
CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"
ATTACKS = {
    "silent": (lambda: iter([b""]), b""),
    "slow header": (lambda: one_by_one(b"POST /embed HTTP/1.1\r\nX-Slow: ", b"a"), b""),
    "flood of headers": (lambda: repeated(HEAD, b"X-A: " + b"a" * 1000 + b"\r\n"), b""),
    "slow body": (lambda: one_by_one(HEAD + b"Content-Length: 90000\r\n\r\n{", b" "), b"HTTP/1.1 408"),
    "a gigabyte, announced": (lambda: iter([HEAD + b"Content-Length: %d\r\n\r\n" % GIGABYTE]), b"HTTP/1.1 422"),
    "a gigabyte in chunks": (lambda: repeated(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK), b"HTTP/1.1 422"),
    "gzip bomb": (
        lambda: iter([HEAD + b"Content-Encoding: gzip\r\nContent-Length: 90000\r\n\r\n" + BOMB]),
        b"HTTP/1.1 415",
    ),
    "answers that nobody reads": (
        lambda: repeated(b"", HEAD + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE),
        b"",
    ),
}


def attack(address: str, parts: Iterator[bytes], *, reads: bool) -> tuple[int, bytes]:
    """Send parts until the server ends the connection; return the number of bytes sent, and what it answered."""
    host, port = address.removeprefix("http://").split(":")
    sent, answer = 0, b""
    with socket.create_connection((host, int(port)), 60) as connection, suppress(ConnectionError):
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                sent += len(part)
        while reads and (part := connection.recv(65536)):
            answer += part
    return sent, answer


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served_during_an_attack(guarded, name):
    """Attackers see at most a refusal, most of what they send is never read, and memory does not grow with it."""
    parts, refusal = ATTACKS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor(ATTACKERS) as threads:
        attacks = [
            threads.submit(attack, guarded.address, parts(), reads="nobody" not in name) for _ in range(ATTACKERS)
        ]
        statuses = {guarded.post("/embed", {"inputs": "a text"}).status for _ in range(20)}
        results = [each.result() for each in attacks]

    assert statuses == {200}
    assert all(answer.startswith(refusal or b"HTTP/1.1 4") or not answer for _, answer in results)
    assert any(answer.startswith(refusal) for _, answer in results)
    assert max(sent for sent, _ in results) < GIGABYTE / 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_more_connections_than_allowed(guarded):
    """A new one replaces the oldest that sends nothing, so that silent ones do not keep others out."""
    host, port = guarded.address.removeprefix("http://").split(":")
    connections = [socket.create_connection((host, int(port)), 60) for _ in range(5 * ATTACKERS)]
    try:
        assert {guarded.post("/embed", {"inputs": "a text"}).status for _ in range(20)} == {200}
    finally:
        for each in connections:
            each.close()


def test_the_reason_arrives_although_the_body_is_too_large(guarded):
    """A client that sends several times too much sees a refusal, not a reset of the connection."""
    answer = guarded.post("/embed", b" " * 900_000)

    assert (answer.status, answer.json["error"]) == (422, "the body has more than 100000 bytes; divide the request")
