"""Remote models give the results of local ones, through each API, and survive what networks do."""

from __future__ import annotations

import json
import socket
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest

from st_connectors.index import Index
from st_connectors.testing.serving import Serving
from st_core import describe
from st_core.errors import InputTooLong, ModelUnavailable, ModelUnsupported
from st_core.remote import RemoteCrossEncoder, RemoteSentenceTransformer, RemoteSparseEncoder

TEXTS = [f"text number {at} about {word}" for at, word in enumerate(["files", "dates", "", "café 🙂"] * 25)]


@pytest.mark.parametrize("role", ["encode", "encode_query", "encode_document"])
def test_dense_vectors_are_those_of_the_local_model(server, dense, role):
    """Bit for bit from a server of our own, of many texts, one text and no text."""
    with RemoteSentenceTransformer(f"{server.address}#dense", batch_size=7) as remote:
        encode, local = getattr(remote, role), getattr(dense, role)

        assert np.array_equal(encode(TEXTS), local(TEXTS))
        assert np.array_equal(encode(TEXTS[0]), local(TEXTS[0]))
        assert encode([]).shape == (0, 256)
        np.testing.assert_allclose(
            encode(TEXTS, normalize_embeddings=True, truncate_dim=9),
            local(TEXTS, normalize_embeddings=True, truncate_dim=9),
            atol=1e-6,
        )


@pytest.mark.parametrize("api", ["tei", "openai", "cohere"])
def test_other_apis(server, dense, api):
    """TEI scales on request; the others always do."""
    with RemoteSentenceTransformer(f"{server.address}#dense", api=api) as remote:
        wanted = dense.encode(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(remote.encode(TEXTS, normalize_embeddings=True), wanted, atol=1e-6)
        assert remote.get_embedding_dimension() == 256
        assert remote.similarity_fn_name == "cosine"


def test_prompts_of_servers_without_any(server, dense):
    """They are put in front of the texts, by role or by name."""
    prompts = {"query": "query: ", "passage": "passage: "}
    with RemoteSentenceTransformer(f"{server.address}#dense", api="tei", prompts=prompts) as remote:
        assert np.array_equal(remote.encode_query("a"), dense.encode("query: a"))
        assert np.array_equal(remote.encode_document("a"), dense.encode("passage: a"))
        assert np.array_equal(remote.encode("a"), dense.encode("a"))
        assert np.array_equal(remote.encode("a", prompt_name="query"), dense.encode("query: a"))
        assert np.array_equal(remote.encode("a", prompt="x: "), dense.encode("x: a"))
        with pytest.raises(ValueError, match="unknown prompt_name 'no'"):
            remote.encode("a", prompt_name="no")


@pytest.mark.parametrize("role", ["encode", "encode_query", "encode_document"])
def test_sparse_vectors_are_those_of_the_local_model(server, sparse, role):
    """Bit for bit, with their width."""
    with RemoteSparseEncoder(server.address, batch_size=9) as remote:
        assert getattr(remote, role)(TEXTS) == getattr(sparse, role)(TEXTS)
        assert getattr(remote, role)(TEXTS[0]) == getattr(sparse, role)(TEXTS[0])
        assert getattr(remote, role)([]).shape == (0, sparse.get_embedding_dimension())
        few = getattr(sparse, role)(TEXTS, max_active_dims=2)
        assert getattr(remote, role)(TEXTS, max_active_dims=2) == few


def test_sparse_vectors_by_tei(server, sparse):
    """Their width must be set."""
    width = sparse.get_embedding_dimension()
    with RemoteSparseEncoder(f"{server.address}", api="tei", dimension=width) as remote:
        assert remote.encode(TEXTS) == sparse.encode(TEXTS)
    with (
        RemoteSparseEncoder(server.address, api="openai") as other,
        pytest.raises(ModelUnsupported, match="the API openai has no sparse vectors"),
    ):
        other.encode(["a"])


def test_the_server_describes_its_models(server, dense):
    """Name and fingerprint are those of the local model, so that collections accept either."""
    with RemoteSentenceTransformer(server.address) as remote:
        ref, local = describe(remote), describe(dense)

        assert (ref.name, dict(ref.fingerprint)) == (local.name, dict(local.fingerprint))
        assert (remote.api, remote.max_seq_length) == ("st-connectors", local.max_tokens)
        assert repr(remote) == f"RemoteSentenceTransformer('{server.address}')"


def test_an_index_by_addresses(server):
    """A collection is filled and searched through the server, and opened again with local models."""
    documents = [{"id": str(at), "text": text} for at, text in enumerate(TEXTS[:8])]
    names = {"dense": f"{server.address}#dense", "sparse": f"{server.address}#sparse"}

    def ranked(index):
        return [(hit.id, round(hit.score, 5)) for hit in index.search("dates").hits]

    with Index.create("memory:served", collection="remote", **names) as remote:
        assert remote.ingest(documents).confirmed == 8
        found = ranked(remote)
    with Index.open("memory:served", collection="remote") as local:
        assert ranked(local) == found
    assert found[0][0] in {"1", "5"}


class Scripted(BaseHTTPRequestHandler):
    """Answers with the next of some statuses, headers and bodies; the last one stays."""

    protocol_version = "HTTP/1.1"
    answers: list
    seen: list

    def do_POST(self):
        length = int(self.headers["content-length"])
        type(self).seen.append((self.path, json.loads(self.rfile.read(length)), dict(self.headers)))
        answers = type(self).answers
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def scripted():
    """Return a function that starts a server with answers, and returns its address and what it has seen."""
    servers = []

    def start(*answers):
        handler = type("Handler", (Scripted,), {"answers": list(answers), "seen": []})
        servers.append(Serving(handler))
        servers[-1].start()
        return f"http://127.0.0.1:{servers[-1].port}", handler.seen

    yield start
    for each in servers:
        each.close()


GOOD = (200, {}, [[1.0, 2.0]])


@pytest.mark.parametrize(
    "bad",
    [
        (503, {}, {"error": "starting"}),
        (429, {"retry-after": "0"}, {"error": "full"}),
        (502, {}, b"<html>gateway</html>"),
        (0, {}, b""),
    ],
)
def test_what_can_succeed_later_is_tried_again(scripted, bad):
    """Until it succeeds, with the same request."""
    address, seen = scripted(bad, bad, GOOD)
    with RemoteSentenceTransformer(f"{address}#m", api="tei", wait=0, api_key="secret") as remote:
        assert remote.encode(["a"]).tolist() == [[1.0, 2.0]]

    assert len(seen) == 3
    assert seen[0][1] == seen[2][1]
    assert seen[0][2].get("authorization", seen[0][2].get("Authorization")) == "Bearer secret"


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((503, {}, {"error": "starting"}), ModelUnavailable, "no answer in 2 attempts: status 503: starting"),
        ((413, {}, {"error": "too long"}), InputTooLong, "too long"),
        ((422, {}, {"error": {"message": "wrong"}}), ValueError, "wrong"),
        ((401, {}, {"detail": "no key"}), ModelUnavailable, "no key (status 401)"),
        ((404, {}, {"error": "unknown model"}), ModelUnavailable, "unknown model (status 404)"),
        ((404, {}, {"error": "nothing here"}), ModelUnavailable, "unknown path /embed or unknown model"),
        ((200, {}, b"<html>hello</html>"), ModelUnavailable, "expected JSON, got another body"),
        ((200, {}, {"vectors": 5}), ModelUnavailable, "does not have the form of the API tei; set api="),
        ((200, {}, [[1.0], [2.0]]), ModelUnavailable, "expected 1 results, got 2"),
    ],
)
def test_refusals_and_wrong_answers(scripted, answer, error, message):
    """An error of the right class, whose message names the server and never the key."""
    address, _ = scripted(answer)
    with (
        RemoteSentenceTransformer(address, api="tei", wait=0, attempts=2, api_key="secret") as remote,
        pytest.raises(error) as raised,
    ):
        remote.encode(["a"])

    assert message in str(raised.value)
    assert address in str(raised.value)
    assert "secret" not in f"{raised.value}{remote!r}{remote._connections!r}"


def test_a_server_that_is_not_there():
    """The error says so, after all attempts."""
    with (
        RemoteSentenceTransformer("http://127.0.0.1:9#m", api="tei", wait=0, attempts=3) as remote,
        pytest.raises(ModelUnavailable, match="no answer in 3 attempts: ConnectionRefusedError"),
    ):
        remote.encode(["a"])


def test_scores_of_other_apis(scripted):
    """Ranks are put into the order of the documents, for each query."""
    ranks = [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]
    address, seen = scripted((200, {}, ranks))
    with RemoteCrossEncoder(address, api="tei") as remote:
        scores = remote.predict([("q", "a"), ("q", "b"), ("r", "c"), ("r", "d")])
        ranked = remote.rank("q", ["a", "b"], top_k=1)

    np.testing.assert_allclose(scores, [0.1, 0.9, 0.1, 0.9])
    assert [each[1]["query"] for each in seen] == ["q", "r", "q"]
    assert [each["corpus_id"] for each in ranked] == [1]


def test_a_score_that_is_missing(scripted):
    """A server that answers with the best only is refused."""
    address, _ = scripted((200, {}, {"results": [{"index": 1, "relevance_score": 0.9}]}))
    with RemoteCrossEncoder(address, api="cohere") as remote, pytest.raises(ModelUnavailable, match=r"expected 2|form"):
        remote.predict([("q", "a"), ("q", "b")])


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("ftp://host", {}, "expected an address such as http://host:8080#model, got 'ftp://host'"),
        ("http://host", {"api": "soap"}, "unknown API 'soap'; expected one of st-connectors, tei, openai, cohere"),
        ("http://host", {"batch_size": 0}, "batch_size must be a positive integer, got 0"),
    ],
)
def test_wrong_arguments(address, options, message):
    """Nothing is sent."""
    with pytest.raises(ValueError, match="^" + __import__("re").escape(message)):
        RemoteSentenceTransformer(address, **options)


def test_a_model_of_another_kind(server):
    """The error names both kinds."""
    with (
        RemoteSentenceTransformer(f"{server.address}#sparse") as remote,
        pytest.raises(ModelUnsupported, match="expected a dense model, got one that is sparse"),
    ):
        remote.encode(["a"])
    with (
        RemoteCrossEncoder(server.address) as reranker,
        pytest.raises(ModelUnavailable, match="0 reranker models; name one after #: none"),
    ):
        reranker.predict([("a", "b")])
