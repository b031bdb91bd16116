"""Small encoders with vectors that can be worked out by hand, and servers that keep what they are asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path
from urllib.parse import parse_qs, unquote

import numpy as np
import pytest
from reading_smile import read_bulk

from st_connectors.filters import And, Eq, Range
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Field, FieldKind, FilterKind, Fusion, Schema, SparseField, TextField
from st_connectors.store import Match, Near, Parts, Record, SearchRequest, Store
from st_connectors.testing.serving import Serving
from st_connectors.vectorise import FieldEncoder
from st_core.vectors import SparseMatrix, SparseVector

VOCABULARY = ("apple", "pear", "plum", "boat", "ship", "sea", "red", "green", "blue", "old")


class LetterEncoder:
    """Dense: how often each of the letters a to p occurs, so [n, 16]."""

    dimension = 16
    name = "letters"

    def encode_document(self, inputs: list[str], /) -> np.ndarray:
        return np.array([[text.count(letter) for letter in "abcdefghijklmnop"] for text in inputs], dtype=np.float32)

    encode_query = encode_document


class WordEncoder:
    """Sparse: how often each word of the vocabulary occurs; queries weigh every word twice."""

    name = "words"

    def encode_document(self, inputs: list[str], /) -> SparseMatrix:
        return self._encode(inputs, 1.0)

    def encode_query(self, inputs: list[str], /) -> SparseMatrix:
        return self._encode(inputs, 2.0)

    def decode(self, embeddings: SparseMatrix, /) -> list[list[tuple[str, float]]]:
        return [
            [
                (VOCABULARY[index], weight)
                for index, weight in sorted(row.to_mapping().items(), key=lambda item: -item[1])
            ]
            for row in embeddings.rows()
        ]

    def _encode(self, inputs: list[str], weight: float) -> SparseMatrix:
        rows = [
            SparseVector.from_mapping({i: weight * text.split().count(word) for i, word in enumerate(VOCABULARY)})
            for text in inputs
        ]
        return SparseMatrix.from_rows(rows, len(VOCABULARY))


@pytest.fixture
def letters() -> LetterEncoder:
    return LetterEncoder()


@pytest.fixture
def words() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def encoders(letters: LetterEncoder, words: WordEncoder) -> list[FieldEncoder]:
    """The two as encoders of the fields dense and sparse."""
    return [FieldEncoder("dense", FieldKind.DENSE, letters), FieldEncoder("sparse", FieldKind.SPARSE, words)]


OpenMemory = Callable[..., Store]


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> OpenMemory:
    """Make an empty collection in memory with the fields dense, sparse and text, or some of them."""

    def make(
        *kinds: str, filterable: dict[str, FilterKind] | None = None, fusion: Fusion | None = None, name: str = "c"
    ) -> Store:
        known: dict[str, Field] = {"dense": DenseField(16), "sparse": SparseField(), "text": TextField()}
        fields = {kind: known[kind] for kind in kinds or known}
        store = open_store(f"memory:{request.node.nodeid}", name, Schema(name, fields, filterable or {}, {}, fusion))
        store.create()
        request.addfinalizer(store.drop)
        return store

    return make


class Recorder:
    """A gRPC server that keeps what it is asked and answers as it is told: by method, with or without its service.

    An answer is a message, a status, or a function of the recorder. Of several answers the first is given first, and
    the last for ever.
    """

    def __init__(self, services, answers):
        self.seen = []
        self._taken = 0
        self._methods = {
            f"/{service.full_name}/{method.name}": method for service in services for method in service.methods
        }
        self._answers = {name: list(given) if isinstance(given, list) else [given] for name, given in answers.items()}

    def last(self, name):
        """The last request of a method."""
        return next(request for method, request in reversed(self.seen) if method == name)

    def take(self):
        """What was asked since the last time, as plain values."""
        from google.protobuf.json_format import MessageToDict

        taken, self._taken = self.seen[self._taken :], len(self.seen)
        return [[name, MessageToDict(request)] for name, request in taken]

    def handler(self, path):
        """How grpc answers one method."""
        import grpc
        from google.protobuf import message_factory

        method = self._methods[path]
        asked, told = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))

        def answer(request, context):
            self.seen.append((method.name, request))
            given = self._answers.get(method.full_name) or self._answers.get(method.name) or [told()]
            first = given.pop(0) if len(given) > 1 else given[0]
            if isinstance(first, grpc.StatusCode):
                context.abort(first, "told to")
            return first(self) if callable(first) else first

        return grpc.unary_unary_rpc_method_handler(answer, asked.FromString, told.SerializeToString)


@pytest.fixture
def recording() -> Iterator[Callable[..., tuple[Recorder, int]]]:
    """Starts a recorder for services and answers; gives it and its port."""
    import grpc

    running = ExitStack()

    class Handler(grpc.GenericRpcHandler):
        def __init__(self, recorder):
            self.recorder = recorder

        def service(self, details):
            return self.recorder.handler(details.method)

    def start(services, answers):
        recorder = Recorder(services, answers)
        server = grpc.server(running.enter_context(ThreadPoolExecutor(4)), handlers=[Handler(recorder)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        running.callback(lambda: server.stop(0).wait())
        return recorder, port

    with running:
        yield start


LUCENE = {"elasticsearch": {"number": "9.5.3"}, "opensearch": {"distribution": "opensearch", "number": "2.19.1"}}
PLUGINS = {"nodes": {"n1": {"plugins": [{"name": "opensearch-knn"}, {"name": "opensearch-neural-search"}]}}}
HEADERS = {"Content-Type": "application/json", "X-Elastic-Product": "Elasticsearch"}


class LuceneStub:
    """A scripted Elasticsearch or OpenSearch server that records its requests.

    Answers are chosen by method and path, in order; the last one is repeated. An answer can be a function of the body.
    """

    def __init__(self, name):
        self.seen = []
        self.answers = {}
        self.on("GET", "/", {"version": LUCENE[name]})
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
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                status, headers, content = answer(sent) if callable(answer) else answer
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for key, value in {**HEADERS, "Content-Length": len(body), **headers}.items():
                    self.send_header(key, str(value))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815  # http.server's names

            def log_message(self, *args):
                pass

        self.server = Serving(Handler)
        self.server.start()
        self.port = self.server.port
        self.address = f"{name}://127.0.0.1:{self.port}"

    def on(self, method, path, *results):
        """Answer with success, or with a pair of a status and what to say."""
        pairs = [result if isinstance(result, tuple) else (200, result) for result in results]
        self.answers[method, path] = [(status, {}, content) for status, content in pairs]

    def fail(self, method, path, status, content, **headers):
        """Answer with a status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[method, path] = [(status, named, content)]

    def requested(self):
        """Methods and paths, in their order."""
        return [(method, path) for method, path, *_ in self.seen]

    def asked(self, method, path):
        """The requests to a path: options, and the values of the body."""
        return [(options, read_bulk(body)) for m, p, options, body, _ in self.seen if (m, p) == (method, path)]

    def close(self):
        """Stop."""
        self.server.close()


@pytest.fixture
def lucene_stub() -> Iterator[Callable[[str], LuceneStub]]:
    """Starts a server that answers as it is told, of the engine that is named."""
    with ExitStack() as running:
        yield lambda name: running.enter_context(closing(LuceneStub(name)))


VECTOR = np.array([0.0, 1.0], np.float32)
WHERE = And((Eq("tag", "x"), Range("price", gte=0.5)))
SPARSE = SparseVector.from_mapping({3: 0.5})
CALLS: Mapping[str, Callable[[Store], object]] = {
    "create": lambda store: store.create(),
    "upsert": lambda store: store.upsert(
        [Record("a", {"dense": VECTOR, "sparse": SPARSE}, {"text": "kettle", "tag": "x", "price": 1.5}), Record("b")]
    ),
    "delete": lambda store: store.delete(["a", "b"]),
    "get": lambda store: store.get(["a"]),
    "search-dense": lambda store: store.search([SearchRequest(Near("dense", VECTOR), limit=3, where=WHERE)]),
    "search-sparse": lambda store: store.search([SearchRequest(Near("sparse", SPARSE), limit=3, parts=Parts.NONE)]),
    "search-text": lambda store: store.search([SearchRequest(Match("text", "kettle"), offset=1)]),
    "scan": lambda store: list(store.scan(where=WHERE, batch=2)),
    "count": lambda store: store.count(WHERE),
    "refresh": lambda store: store.refresh(),
    "drop": lambda store: store.drop(),
}


@pytest.fixture
def wire_schema() -> Schema:
    """The schema of the golden requests."""
    fields: dict[str, Field] = {"dense": DenseField(2), "sparse": SparseField(), "text": TextField()}
    return Schema("books", fields, {"tag": FilterKind.KEYWORD, "price": FilterKind.FLOAT})


@pytest.fixture
def assert_golden() -> Callable[[Store, Recorder, Path, str], None]:
    """Asserts that every operation sends just what a file says.

    With ``ST_WRITE_GOLDEN`` set it writes the file, for a human to read.

    Clients add things of their own, so that a file is for the minor version of the client that it was written with.
    """

    def check(store: Store, recorder: Recorder, file: Path, client: str) -> None:
        kept_for = version(client).rpartition(".")[0]
        recorder.take()
        sent = {}
        for name, call in CALLS.items():
            call(store)
            sent[name] = recorder.take()
        if os.environ.get("ST_WRITE_GOLDEN"):
            kept = {"client": f"{client} {kept_for}", "sent": sent}
            file.write_text(f"{json.dumps(kept, indent=1, sort_keys=True)}\n", encoding="utf-8")
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["client"] != f"{client} {kept_for}":
            pytest.skip(f"the requests were kept for {kept['client']}: read them anew with ST_WRITE_GOLDEN=1")
        golden = kept["sent"]
        assert list(golden) == sorted(CALLS)
        for name, requests in sent.items():
            assert requests == golden[name], name

    return check
