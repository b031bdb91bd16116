"""The fault proxy injects the ordered faults and counts requests."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections import Counter
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from itertools import islice, pairwise

import pytest
import trustme

from st_connectors.testing.faults import (
    Answer,
    BlackHole,
    CutOff,
    Delay,
    FaultProxy,
    Hold,
    Pass,
    Reset,
    Truncate,
    random_faults,
    refused_port,
)
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


def test_cut_off_sends_half_as_if_it_were_all(proxy):
    """The length is that of the half."""
    whole = post(proxy)[2]
    proxy.order(CutOff())

    status, headers, body = post(proxy)

    assert (status, headers["Content-Length"]) == (201, str(len(body)))
    assert body == whole[: len(whole) // 2]


def test_a_black_hole_forwards_nothing_and_does_not_answer():
    """The client times out; the next request is answered."""
    forwarded = []

    class Recording(Echo):
        def do_POST(self):
            forwarded.append(self.path)
            super().do_POST()

    with Serving(Recording) as server, FaultProxy((server.host, server.port)) as proxy:
        proxy.order(BlackHole())
        with pytest.raises(TimeoutError):
            post(proxy, "/lost", timeout=0.05)
        assert post(proxy, "/next")[0] == 201
        assert [one.path for one in proxy.seen] == ["/lost", "/next"]
    assert forwarded == ["/next"]


def test_a_delayed_response_comes(proxy):
    """It is the server's."""
    proxy.order(Delay(0.01))
    assert post(proxy)[0] == 201


@pytest.mark.parametrize("fault", [Hold(), BlackHole(), Delay(PATIENCE)])
def test_a_client_that_disconnects_ends_the_wait(echo, fault):
    """No thread is left for the next minute: closing the proxy waits for all of them."""
    with FaultProxy(echo) as proxy:
        proxy.order(fault)
        with pytest.raises(TimeoutError):
            post(proxy, timeout=0.05)
        began = time.monotonic()
        with proxy.refusing():
            pass
        assert time.monotonic() - began < PATIENCE / 2


def test_connections_are_refused_for_a_while(proxy):
    """The port stays the same; open connections are closed."""
    with closing(http.client.HTTPConnection(proxy.host, proxy.port, timeout=PATIENCE)) as opened:
        opened.request("POST", "/before", b"x")
        assert opened.getresponse().read()
        port = proxy.port
        for _ in range(2):
            with proxy.refusing(), pytest.raises(ConnectionRefusedError):
                post(proxy)
            assert post(proxy, "/after")[0] == 201
        assert proxy.port == port
        assert opened.sock.recv(1) == b""
    assert [one.path for one in proxy.seen] == ["/before", "/after", "/after"]


WEIGHTS = {Pass(): 6, Answer(503): 2, Reset(): 1, (Answer(429, retry_after=0), Answer(429)): 1}


def test_random_faults_are_those_of_the_seed():
    """In the proportions of their weights; a storm is a run."""
    faults, same, other = (list(islice(random_faults(seed, WEIGHTS), 5000)) for seed in (7, 7, 8))

    assert faults == same != other
    counts = Counter(faults)
    assert counts.keys() == {Pass(), Answer(503), Reset(), Answer(429, retry_after=0), Answer(429)}
    assert counts[Pass()] / 5000 == pytest.approx(6 / 11, abs=0.05)
    assert counts[Reset()] / 5000 == pytest.approx(1 / 11, abs=0.03)
    storms = [pair for pair in pairwise(faults) if pair[0] == Answer(429, retry_after=0)]
    assert {second for _, second in storms} == {Answer(429)}


def test_a_mix_is_injected_and_counted(proxy):
    """Ordered faults come first and count too."""
    weights = {Pass(): 1, Answer(503): 1, (Answer(429, retry_after=0), Answer(429)): 1}
    expected = [Answer(500), *islice(random_faults(3, weights), 19)]
    proxy.mix(3, weights)
    proxy.order(Answer(500))

    statuses = [post(proxy)[0] for _ in range(20)]

    assert statuses == [fault.status if isinstance(fault, Answer) else 201 for fault in expected]
    assert proxy.injected == Counter(expected)
    proxy.always(Pass())
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
