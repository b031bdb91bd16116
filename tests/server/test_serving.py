"""A server of the built-in models answers with the numbers of the library, and refuses what it must."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from served import running

from st_connectors.server.calls import EmbedTokens, TokenVectors, Usage
from st_connectors.server.settings import Limits, ModelSettings, Settings
from st_core.protocols import ModelKind

TEXTS = ["copy a directory tree", "", "parse a date string", "café 日本語 🙂", "remove a folder " * 50]


def test_dense_vectors_are_those_of_the_library(server, dense):
    """Every route gives the vectors of ``encode``, scaled to unit length where its protocol does."""
    wanted = dense.encode(TEXTS)
    unit = dense.encode(TEXTS, normalize_embeddings=True)

    assert np.array_equal(
        np.array(server.post("/embed", {"inputs": TEXTS, "normalize": False}).json, np.float32), wanted
    )
    np.testing.assert_allclose(server.post("/embed", {"inputs": TEXTS}).json, unit, atol=1e-6)
    np.testing.assert_allclose(server.post("/opensearch/dense", TEXTS).json, unit, atol=1e-6)
    own = server.post("/v1/encode", {"inputs": TEXTS, "encoding_format": "base64", "models": ["dense"]}).json
    rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in own["models"]["dense"]["vectors"]]
    assert np.array_equal(np.stack(rows), wanted)


def test_cut_vectors_are_those_of_the_library(server, dense):
    """The width is cut before vectors are scaled; the whole width is accepted for every model."""
    wanted = dense.encode(TEXTS[:1], truncate_dim=16, normalize_embeddings=True)

    np.testing.assert_allclose(server.post("/embed", {"inputs": TEXTS[0], "dimensions": 16}).json, wanted, atol=1e-6)
    assert server.post("/embed", {"inputs": TEXTS[0], "dimensions": 256}).status == 200
    refused = server.post("/embed", {"inputs": TEXTS[0], "dimensions": 257})
    assert (refused.status, refused.json["error"]) == (422, "dimensions: the model 'dense' has 256, got 257")


@pytest.mark.parametrize("role", ["query", "document"])
def test_sparse_vectors_are_those_of_the_library(server, sparse, role):
    """Queries and documents differ where the model says so, and tokens are the model's own."""
    wanted = getattr(sparse, f"encode_{role}")(TEXTS)

    found = server.post("/v1/encode", {"inputs": TEXTS, "models": ["sparse"], "role": role}).json["models"]["sparse"]
    for row, vector in zip(wanted.rows(), found["vectors"], strict=True):
        assert row.indices.tolist() == vector["indices"]
        assert np.array_equal(row.values, np.array(vector["values"], np.float32))
    named = server.post(f"/opensearch/sparse?input_type={role}", TEXTS).json
    assert named == [pytest.approx(dict(sparse.decode(row))) for row in wanted.rows()]


def test_a_request_that_many_share(server, dense):
    """Sixty clients at once: each gets the vectors of its own texts."""

    def ask(at):
        texts = [f"text number {at}", "word " * (at % 7 + 1)]
        return np.array(server.post("/embed", {"inputs": texts, "normalize": False}).json, np.float32), texts

    with ThreadPoolExecutor(16) as clients:
        for found, texts in clients.map(ask, range(60)):
            np.testing.assert_allclose(found, dense.encode(texts), atol=1e-6)


def test_tokens_of_tei(server):
    """Tokens have their places in the text, and decode to it."""
    [tokens] = server.post("/tokenize?model=dense", {"inputs": "Copy a directory"}).json

    plain = [token for token in tokens if not token["special"]]
    assert [token["text"] for token in plain] == ["Copy", "a", "directory"]
    assert [(token["start"], token["stop"]) for token in plain] == [(0, 4), (5, 6), (7, 16)]
    assert server.post("/decode?model=dense", {"ids": [token["id"] for token in plain]}).json == ["copy a directory"]
    refused = server.post("/decode?model=dense", {"ids": [10**9]})
    assert refused.status == 422


def test_ids_are_the_texts_that_they_decode_to(server, dense):
    """TEI accepts token ids of the model."""
    ids = dense.backend_tokenizer.encode("copy a directory", add_special_tokens=False).ids

    found = server.post("/embed", {"inputs": ids, "normalize": False}).json
    np.testing.assert_allclose(found, dense.encode(["copy a directory"]), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/embed?model=other", {"inputs": "a"}, 404, "unknown model; expected one of dense, sparse"),
        ("/v1/embeddings", {"input": "a", "model": "other"}, 404, "unknown model; expected one of dense, sparse"),
        (
            "/embed?model=sparse",
            {"inputs": "a"},
            424,
            "the model 'sparse' is sparse; this route needs one that is dense",
        ),
        ("/embed_all", {"inputs": "a"}, 424, "the model 'dense' does not compute vectors of tokens"),
        ("/rerank", {"query": "q", "texts": ["a"]}, 424, "no reranker model is served; start the server with one"),
        (
            "/v2/rerank",
            {"query": "q", "documents": ["a"]},
            400,
            "no reranker model is served; start the server with one",
        ),
        ("/embed", {"inputs": ["a"] * 2049}, 422, "the request has more than 2048 texts; divide it"),
        (
            "/embed",
            {"inputs": "a", "prompt_name": "no"},
            422,
            "the model 'dense' has no prompt of this name; it has: document, query",
        ),
        ("/embed", b"", 400, "the body is not valid JSON: it is empty"),
        ("/embed", b'{"inputs": "cut', 400, "the body is not valid JSON: see line 1, column 16"),
        ("/embed", b"\xff", 400, "the body is not valid JSON"),
        ("/nowhere", {}, 404, "unknown path; see /docs"),
        ("/health", {}, 405, "this path does not accept this method"),
    ],
)
def test_refusals(server, path, body, status, message):
    """One clear error in the form of the API, which repeats no text of the request."""
    answer = server.post(path, body)

    error = answer.json["error"] if "error" in answer.json else answer.json["message"]
    assert answer.status == status
    assert (error["message"] if isinstance(error, dict) else error).startswith(message)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"content-type": "text/plain"}, "content-type: expected application/json"),
        ({"content-encoding": "gzip"}, "content-encoding: a compressed body is not accepted; send it as it is"),
    ],
)
def test_other_types_of_bodies_are_refused(server, headers, message):
    """A gzip bomb is not unpacked. A client that is still sending its body gets the answer, not a reset."""
    body = b'{"inputs": "a"}' + b" " * 5_000_000
    answer = server.send("POST", "/embed", body, {"content-type": "application/json", **headers})

    assert (answer.status, answer.json["error"]) == (415, message)


def test_health_models_and_metrics(server):
    """What operators and clients ask for."""
    assert server.get("/health").json == {"status": "ok"}
    assert server.get("/ready").json == {"ready": True}
    assert server.get("/info").json["models"]["sparse"]["kind"] == "sparse"
    assert [each["id"] for each in server.get("/v1/models").json["data"]] == ["dense", "sparse"]
    assert server.get("/v1/models/dense").json["st_connectors"]["ref"]["fingerprint"]["weights"]
    assert server.get("/v1/models/other").status == 404
    server.post("/embed", {"inputs": "one two three"})
    lines = server.get("/metrics").body.decode().splitlines()
    assert any(line.startswith('te_request_count{method="/embed"}') for line in lines)
    assert any(line.startswith('st_tokens_total{model="dense"}') for line in lines)
    assert any(line.startswith("te_request_duration_bucket{le=") for line in lines)
    assert server.get("/openapi.json").json["paths"]["/v2/rerank"]["post"]["tags"] == ["Cohere"]


def test_request_ids_are_returned(server):
    """That of the client, or a new one for an id that could break a log."""
    assert server.post("/embed", {"inputs": "a"}, x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    assert len(server.post("/embed", {"inputs": "a"}, x_request_id="x" * 500).headers["x-request-id"]) == 32
    assert server.post("/embed", {"inputs": []}, x_request_id="mine-2").headers["x-request-id"] == "mine-2"


def raw(address, content):
    """What a server sends to a client that sends bytes and then waits."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(content)
        parts = []
        with suppress(ConnectionResetError):  # closed while bytes were still coming
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


@pytest.fixture(scope="module")
def strict():
    """A server with small limits."""
    limits = Limits(texts=3, body_bytes=2000, request_tokens=50, header_s=0.3, body_s=0.3, auto_truncate=False)
    models = (
        ModelSettings("dense", "builtin:dense", ModelKind.DENSE, max_seq_length=8, aliases=("text-embedding-3-small",)),
    )
    with running(Settings(models, limits=limits, access_log=False)) as started:
        yield started


def test_limits(strict):
    """Texts, bytes and tokens of a request are limited, and a text that is too long is 413."""
    assert strict.post("/embed", {"inputs": ["a"] * 4}).status == 422
    assert strict.post("/v1/embeddings", {"input": "a" * 3000, "model": "dense"}).status == 400
    long = strict.post("/embed", {"inputs": ["short", "one two three four five six seven eight nine"]})
    assert long.status == 413
    assert long.json["error"].startswith("input 1 has 9 tokens; the model 'dense' reads up to 8")
    cut = strict.post(
        "/v1/encode", {"inputs": ["short", "one two three four five six seven eight nine"], "truncate": True}
    )
    assert cut.json["models"]["dense"]["truncated"] == [False, True]
    assert cut.json["models"]["dense"]["tokens"] == [1, 8]


def test_the_end_of_a_text_is_kept_on_request(strict, dense):
    """TEI's direction Left cuts the beginning off."""
    text = "one two three four five six seven eight nine ten"
    body = {"inputs": text, "truncate": True, "truncation_direction": "Left", "normalize": False}

    np.testing.assert_allclose(strict.post("/embed", body).json, dense.encode([text.partition("two ")[2]]), atol=1e-6)


def test_a_text_of_a_million_characters(server):
    """It is read whole, truncated, or refused as too long, as the request says."""
    body = {"inputs": ["word " * 200_000], "models": ["dense"]}

    whole = server.post("/v1/encode", body).json["models"]["dense"]
    cut = server.post("/v1/encode", body | {"max_tokens": 8}).json["models"]["dense"]
    refused = server.post("/v1/encode", body | {"max_tokens": 8, "truncate": False})

    assert (whole["tokens"], whole["truncated"]) == ([200_000], [False])
    assert (cut["tokens"], cut["truncated"]) == ([8], [True])
    assert refused.status == 413
    assert refused.json["error"].startswith("input 0 has 200000 tokens; the model 'dense' reads up to 8")


def test_aliases(strict):
    """A client that cannot choose a name finds the model by an alias."""
    answer = strict.post("/v1/embeddings", {"input": "a", "model": "text-embedding-3-small"})

    assert answer.json["model"] == "dense"


@pytest.mark.parametrize(
    "content",
    [b"", b"POST /embed HTTP/1.1\r\nHost: x\r\n", b"POST /embed HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 200_000],
    ids=["silent", "half a header", "flood of headers"],
)
def test_slow_and_flooding_clients_are_dropped(strict, content):
    """The connection ends, and others go on being served."""
    answer = raw(strict.address, content)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert strict.post("/embed", {"inputs": "a"}).status == 200


def test_a_body_that_does_not_arrive_is_a_timeout(strict):
    """In the form of the API."""
    answer = raw(
        strict.address,
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    )

    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error_type"] == "Validation"


def test_a_large_body_is_refused_before_it_is_read(strict):
    """A gigabyte that was announced is not waited for."""
    answer = raw(
        strict.address,
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n",
    )

    assert answer.startswith(b"HTTP/1.1 422")


def test_api_keys(tmp_path):
    """Needed for everything but health; a changed file is read again; Qdrant sends the key in the body."""
    file = tmp_path / "keys"
    file.write_text("# keys\nfirst-key\n")
    settings = Settings(key_file=str(file), access_log=False)
    with running(settings, environment={"ST_SERVER_API_KEY": "from-environment, other"}) as started:
        body = {"inputs": "a"}
        assert started.get("/health").status == 200
        refused = started.post("/embed", body)
        assert (refused.status, refused.json["error"]) == (401, "the API key is missing or wrong")
        assert started.post("/embed", body, authorization="Bearer wrong").status == 401
        assert started.post("/embed", body, authorization="Bearer first-key").status == 200
        assert started.post("/embed", body, x_api_key="from-environment").status == 200
        assert started.get("/v1/models").status == 401
        inference = {"inputs": [{"data": "a", "data_type": "text", "model": "dense"}], "token": "other"}
        assert started.post("/qdrant/inference", inference).status == 200
        assert started.post("/qdrant/inference", inference | {"token": None}).status == 401


def test_origins_are_allowed_by_the_settings(server):
    """And none without them."""
    headers = {"origin": "https://example.org", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in server.send("OPTIONS", "/embed", None, headers).headers
    with running(Settings(cors=("https://example.org",), access_log=False)) as started:
        allowed = started.send("OPTIONS", "/embed", None, headers).headers
    assert allowed["access-control-allow-origin"] == "https://example.org"


def test_spans(server, monkeypatch):
    """Each request is a span with the route and the number of tokens, where OpenTelemetry's API is installed."""
    trace = pytest.importorskip("opentelemetry.trace", reason="needs OpenTelemetry's API")
    spans = []

    class Span(trace.NonRecordingSpan):
        def set_attributes(self, attributes):
            spans[-1][1].update(attributes)

    class Tracer(trace.NoOpTracer):
        def start_as_current_span(self, name, *, kind, attributes):
            spans.append((name, dict(attributes)))
            return trace.use_span(Span(trace.INVALID_SPAN_CONTEXT))

    monkeypatch.setattr(trace, "get_tracer", lambda _name: Tracer())
    server.post("/embed", {"inputs": ["one two", "three"]})

    assert spans == [
        ("POST /embed", {"http.route": "/embed", "http.status": 200, "st.texts": 2, "st.tokens": 3}),
    ]


def test_a_slow_second_header_ends_the_connection(strict):
    """The time limit holds for every request of a connection."""
    body = b'{"inputs": "a"}'
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    host, port = strict.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(head + body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"POST /embed HTTP/1.1\r\nHost:")
        with suppress(ConnectionResetError):
            while connection.recv(65536):
                pass


def cancelled(server):
    """The number of requests whose clients left."""
    counts = re.findall(rb"^st_cancelled_total (\d+)", server.get("/metrics").body, re.MULTILINE)
    return int(counts[0]) if counts else 0


def test_a_client_that_leaves_costs_nothing(server, monkeypatch):
    """Its request leaves the queue before it is tokenized, and is counted."""
    service, free, accepted = server.service, threading.Event(), threading.Event()
    before = cancelled(server)
    batcher = service._batchers["dense"]
    submit = batcher.submit
    prepared = []

    def accept(job):
        prepare = job.prepare
        job.prepare = lambda: prepared.append(job) or prepare()
        accepted_job = submit(job)
        accepted.set()
        return accepted_job

    monkeypatch.setattr(batcher, "submit", accept)
    blockers = [service.run(lambda: free.wait(60)) for _ in range(service._pool._max_workers)]
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
        connection.sendall(head + b'{"inputs": "a"}')
        assert accepted.wait(60)
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: not batcher.jobs, 60)
    free.set()

    assert all(each.result(60) for each in blockers)
    assert prepared == []
    assert cancelled(server) == before + 1
    assert server.post("/embed", {"inputs": "a"}).status == 200


def test_vectors_of_tokens_leave_the_threads_of_others_free(server, monkeypatch):
    """They do not go through the queue: one such request is computed at a time, and others are answered meanwhile."""
    service, free = server.service, threading.Event()
    found = TokenVectors(Usage("dense", np.ones(1, np.int64), np.zeros(1, np.bool_)), (np.ones((1, 2), np.float32),))
    dense, count = service.model("dense"), service._pool._max_workers + 1
    answer = dense.answer
    monkeypatch.setattr(
        dense, "answer", lambda call: found if isinstance(call, EmbedTokens) and free.wait(60) else answer(call)
    )
    with ThreadPoolExecutor(count) as threads:
        waiting = [threads.submit(server.post, "/embed_all", {"inputs": "a"}) for _ in range(count)]
        others = [server.post(f"{path}?model=dense", {"inputs": "a"}).status for path in ("/embed", "/tokenize")]
        free.set()
        assert others == [200, 200]
        assert [each.result().json for each in waiting] == [[[[1.0, 1.0]]]] * count
