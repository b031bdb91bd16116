"""A server on the loopback interface that answers as it is told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

import pytest

INFO = {"version": {"distribution": "opensearch", "number": "2.19.1"}}
PLUGINS = {"nodes": {"n1": {"plugins": [{"name": "opensearch-knn"}, {"name": "opensearch-neural-search"}]}}}


class Stub:
    """Answers by method and path, one after the other and the last for ever, and remembers what was asked."""

    def __init__(self):
        self.seen = []
        self.answers = {}
        self.on("GET", "/", INFO)
        self.on("GET", "/_nodes/plugins", PLUGINS)
        self.on("GET", "/_cluster/settings", {})
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path, _, query = unquote(self.path).partition("?")
                stub.seen.append((self.command, path, parse_qs(query), sent, dict(self.headers)))
                missing = (404, {}, {"error": {"type": "index_not_found_exception", "reason": "no such index [books]"}})
                answers = stub.answers.get((self.command, path), [missing])
                status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815  # http.server's names

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.port = self.server.server_address[1]
        self.address = f"opensearch://127.0.0.1:{self.port}"

    def on(self, method, path, *results):
        """Answer with success."""
        self.answers[method, path] = [(200, {}, result) for result in results]

    def fail(self, method, path, status, content, **headers):
        """Answer with a status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[method, path] = [(status, named, content)]

    def asked(self, method, path):
        """The requests to a path: options, and the body as JSON lines."""
        return [
            (options, [json.loads(line) for line in body.splitlines()])
            for m, p, options, body, _ in self.seen
            if (m, p) == (method, path)
        ]

    def close(self):
        """Stop."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def stub():
    """A server that answers as it is told."""
    server = Stub()
    yield server
    server.close()
