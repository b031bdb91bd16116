"""Servers of tests leave nothing behind, whatever their clients do."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler

import pytest
import trustme

from st_connectors.testing.serving import Serving

PATIENCE = 60.0


class Greet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def contexts():
    """Return the contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(serving)
    authority.configure_trust(trusting)
    return serving, trusting


def asked(client: socket.socket) -> socket.socket:
    """Ask and read the answer; the connection stays open."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"hi"):
        answer += client.recv(4096)
    return client


@pytest.mark.parametrize("is_secured", [False, True])
def test_a_closed_server_leaves_no_connection_and_no_thread(contexts, is_secured):
    """Clients that keep a connection open, send nothing, speak no HTTP, or are gone do not keep it from closing."""
    serving, trusting = contexts
    before = set(threading.enumerate())
    with ExitStack() as clients:
        with Serving(Greet, tls=serving if is_secured else None) as server:

            def connect():
                client = socket.create_connection((server.host, server.port), PATIENCE)
                return clients.enter_context(closing(client))

            def talk():
                client = connect()
                return asked(trusting.wrap_socket(client, server_hostname="localhost") if is_secured else client)

            silent = connect()
            connect().sendall(b"nonsense\r\n")
            connect().close()
            kept = clients.enter_context(closing(talk()))
            clients.enter_context(closing(talk())).close()

        assert set(threading.enumerate()) <= before
        assert [ended(client) for client in (silent, kept)] == [True, True]


def ended(client: socket.socket) -> bool:
    """Return whether the server has closed a connection."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
