"""Encoder servers as values, and stores over HTTP that a test imitates."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from st_connectors.setup.encoder import Encoder, Model
from st_connectors.testing.serving import Serving
from st_core.protocols import ModelKind

DENSE = Model("dense", ModelKind.DENSE, 384, "cosine", "./minilm", {"query": "query: ", "document": "passage: "})
SPARSE = Model("splade", ModelKind.SPARSE, 30522, "dot", "./splade")
RERANKER = Model("rerank", ModelKind.RERANKER, 1, None, "./reranker")
ENCODER = Encoder("http://10.0.0.5:8080", DENSE, SPARSE, RERANKER)


class Imitation:
    """A store over HTTP: answers come from a function, and requests are recorded."""

    def __init__(self, answer: Callable[[str, str, Any], tuple[int, Any]]) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        imitation = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                body = json.loads(content) if content else None
                imitation.requests.append((self.command, self.path, body))
                status, value = answer(self.command, self.path, body)
                text = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                kind = "text/html" if isinstance(value, bytes) else "application/json"
                for name, header in (("content-type", kind), ("x-elastic-product", "Elasticsearch")):
                    self.send_header(name, header)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = reply  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.serving = Serving(Handler)

    def __enter__(self) -> Self:
        self.serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.serving.close()

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.serving.port}"

    def changes(self) -> list[tuple[str, str]]:
        """Return the requests that are not GET, without bodies."""
        return [(method, path) for method, path, _ in self.requests if method != "GET"]
