"""The fault proxy injects the ordered faults and counts requests."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import pytest
import trustme

from st_connectors.testing.faults import Answer, FaultProxy, Hold, Pass, Reset, Truncate, refused_port
from st_connectors.testing.serving import Serving

PATIENCE = 60.0
"""Seconds in which a server responds on a busy machine; no test waits for it unless it fails."""


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"path": self.path, "body": body.decode(), "key": self.headers.get("X-Key")}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture(scope="module")
def echo():
    with Serving(Echo) as server:
        yield server.host, server.port


@pytest.fixture
def proxy(echo):
    with FaultProxy(echo) as proxy:
        yield proxy


def post(proxy, path="/a?b=c", timeout=PATIENCE, body=b"h\xc3\xa4"):
    with closing(http.client.HTTPConnection(proxy.host, proxy.port, timeout=timeout)) as connection:
        connection.request("POST", path, body, {"X-Key": "k"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_everything_passes_without_faults(proxy):
    """Status, path, headers and bodies pass unchanged in both directions."""
    status, headers, body = post(proxy)

    assert (status, headers["Content-Type"]) == (201, "application/json")
    assert json.loads(body) == {"path": "/a?b=c", "body": "hä", "key": "k"}
    assert [(one.method, one.path, one.body) for one in proxy.seen] == [("POST", "/a?b=c", b"h\xc3\xa4")]


def test_each_ordered_fault_affects_one_request(proxy):
    """After two ordered responses the server responds again; all three requests are counted."""
    proxy.order(Answer(429, retry_after=1.5), Answer(503, b"busy", content_type="text/plain"))

    first, second, third = post(proxy), post(proxy), post(proxy)

    assert (first[0], first[1]["Retry-After"]) == (429, "1.5")
    assert (second[0], second[2], second[1]["Content-Type"]) == (503, b"busy", "text/plain")
    assert third[0] == 201
    assert len(proxy.seen) == 3


def test_faults_can_be_limited_to_some_requests(proxy):
    """A fault for some requests does not affect the others."""
    proxy.order(Answer(500), only=lambda seen: seen.path == "/bad")

    assert [post(proxy, path)[0] for path in ("/good", "/bad", "/bad")] == [201, 500, 201]


def test_always_affects_every_request(proxy):
    """A permanent fault stays until it is changed."""
    proxy.always(Answer(503))
    assert [post(proxy)[0] for _ in range(3)] == [503] * 3
    proxy.always(Pass())
    assert post(proxy)[0] == 201


@pytest.mark.parametrize("after", [0, 1, 5])
def test_reset_breaks_the_connection(proxy, after):
    """The client sees a reset before the response or within it."""
    proxy.order(Reset(after))
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected, http.client.IncompleteRead)):
        post(proxy)
    assert post(proxy)[0] == 201


def test_truncate_sends_half(proxy):
    """The announced length is that of the whole response, of which half is sent."""
    proxy.order(Truncate())
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(proxy)
    assert len(caught.value.partial) == pytest.approx(caught.value.expected, abs=1)


def test_hold_delays_the_response(proxy):
    """A delayed response is not sent before its release; the client times out first."""
    proxy.order(Hold(), Hold())
    with pytest.raises(TimeoutError):
        post(proxy, timeout=0.05)
    proxy.release()
    assert post(proxy)[0] == 201


def test_nobody_listens_on_a_refused_port():
    """A connection to a refused port is refused."""
    connection = http.client.HTTPConnection("127.0.0.1", refused_port(), timeout=PATIENCE)
    with closing(connection), pytest.raises(ConnectionRefusedError):
        connection.request("GET", "/")


def test_without_a_server_everything_is_not_found():
    """A proxy without a server responds 404 unless a fault is set."""
    with FaultProxy() as proxy:
        assert post(proxy)[0] == 404


def test_requests_without_authorization_are_refused(echo):
    """Only the required header passes; all requests are counted, and a test can wait for them."""
    with FaultProxy(echo, admits="ApiKey right") as proxy:
        for word, status in (("ApiKey right", 201), ("ApiKey wrong", 401), (None, 401)):
            with closing(http.client.HTTPConnection(proxy.host, proxy.port, timeout=PATIENCE)) as connection:
                connection.request("POST", "/a", b"x", {"Authorization": word} if word else {})
                assert connection.getresponse().status == status
        proxy.wait(lambda: len(proxy.seen) == 3)


@pytest.fixture(scope="module")
def certificates():
    """Return the contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(serving)
    authority.configure_trust(trusting)
    return serving, trusting


def test_tls_terminates_at_the_proxy(echo, certificates):
    """A client that trusts the certificate is forwarded, one that uses plain HTTP is not."""
    serving, trusting = certificates
    with FaultProxy(echo, tls=serving) as proxy:
        secured = http.client.HTTPSConnection("localhost", proxy.port, timeout=PATIENCE, context=trusting)
        with closing(secured):
            secured.request("POST", "/a", b"x")
            assert json.load(secured.getresponse())["path"] == "/a"
        # The server may hang up before the body is sent, which is a second packet, or after.
        with pytest.raises((http.client.HTTPException, OSError)):
            post(proxy)
        assert len(proxy.seen) == 1
