"""Searches through the gateway: those with its query are answered, all others reach the node as they are."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from stub_nodes import StoringNode, storing_node

pytest.importorskip("h11", reason="needs the extra server")
pytest.importorskip("elasticsearch", reason="needs the extra elasticsearch")

from st_connectors.gateway import Limits, Rule, Settings, serving
from st_connectors.models import LazyModel

THEIRS = {"properties": {"body": {"type": "text"}, "weights": {"type": "sparse_vector"}}}
RULE = Rule("theirs", text="body", sparse="weights", sparse_model="builtin:sparse", reranker="builtin-reranker")
FOUND = [
    {"_id": "a", "_score": 2.0, "_source": {"body": "a whale", "n": 1}},
    {"_id": "b", "_score": 1.0, "_source": {"body": "a long voyage under the sea", "n": 2}},
]


class Searching(StoringNode):
    """A node that finds the same two documents in every search, or fails."""

    status = 200

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return the answer, and record the bodies of searches."""
        if not path.partition("?")[0].endswith(("_search", "_msearch")):
            return super().answer(method, path, body)
        self.bulks.append(body)
        if self.status != 200:
            return self.status, {"error": {"type": "stub_exception", "reason": "as prepared"}}
        answer = {"took": 1, "_shards": {"failed": 0}, "hits": {"total": {"value": 2}, "hits": FOUND}, "status": 200}
        count = len([line for line in body.split(b"\n") if line.strip()]) // 2
        return 200, {"responses": [answer] * count} if "_msearch" in path else answer


@pytest.fixture
def node() -> Iterator[Searching]:
    with storing_node(theirs=THEIRS, plain={"properties": {}}) as started:
        started.__class__ = Searching
        yield started


@pytest.fixture
def address(node) -> Iterator[str]:
    settings = Settings((f"elasticsearch://127.0.0.1:{node.port}",), rules=(RULE,), limits=Limits(check_s=3600))
    with serving(settings) as started:
        yield started


def send(address: str, path: str, *bodies: Any, **headers: str) -> tuple[int, Any, Any]:
    """Send JSON, or lines of it, and return the status, the body and the headers of the answer."""
    content = "\n".join(json.dumps(body) for body in bodies).encode() + b"\n" * (len(bodies) > 1)
    if headers.get("content_encoding") == "gzip":
        content = gzip.compress(content)
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    names = {"content-type": "application/json", **{name.replace("_", "-"): each for name, each in headers.items()}}
    connection.request("POST", path, content, names)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, json.loads(answer), response.headers


def query(**clause: Any) -> dict[str, Any]:
    return {"query": {"st_connectors": {"query": "the sea", **clause}}}


@pytest.mark.parametrize("mode", ["text", "sparse"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_search_has_hits_in_the_form_of_the_engine(address, mode, encoding):
    """The hits of the node are those of the answer, with their payloads as sources."""
    status, answer, headers = send(address, "/theirs/_search", query(mode=mode), content_encoding=encoding)

    assert status == 200
    assert headers["x-elastic-product"] == "Elasticsearch"
    assert [(hit["_id"], hit["_source"]) for hit in answer["hits"]["hits"]] == [
        ("a", {"body": "a whale", "n": 1}),
        ("b", {"body": "a long voyage under the sea", "n": 2}),
    ]


def test_reranker_of_a_rule_orders_the_hits(address, monkeypatch):
    """With ``rerank`` the reranker scores the query with each text, and its scores are those of the hits."""

    class Lengths:
        def predict(self, pairs: list[tuple[str, str]]) -> list[float]:
            assert {query for query, _ in pairs} == {"the sea"}
            return [float(len(text)) for _, text in pairs]

    load = LazyModel._load
    monkeypatch.setattr(LazyModel, "_load", lambda self, name: Lengths() if "reranker" in name else load(self, name))
    _, answer, _ = send(address, "/theirs/_search", query(mode="text", rerank=True, legs=True))

    hits = answer["hits"]["hits"]
    assert [(hit["_id"], hit["_score"]) for hit in hits] == [("b", 27.0), ("a", 7.0)]
    assert hits[0]["st_connectors"]["retrieved"] == 1.0


def test_other_searches_pass(node, address):
    """A search without the query reaches the node byte for byte, whatever else it contains."""
    other = {"query": {"match": {"body": 'the "st_connectors" query'}}}
    send(address, "/theirs/_search", other)
    send(address, "/plain/_search", {"size": 0}, content_encoding="gzip")
    status, answer, _ = send(address, "/_msearch", {"index": "plain"}, {"size": 0})

    assert node.bulks == [json.dumps(other).encode(), b'{"size": 0}', b'{"index": "plain"}\n{"size": 0}\n']
    assert (status, len(answer["responses"])) == (200, 1)


def test_multi_search_sends_the_others_to_the_node(node, address):
    """The responses have the order of the searches; one that is refused is an error among them."""
    lines = [
        {"index": "plain"}, {"size": 0},
        {"index": ["theirs"]}, query(mode="text"),
        {}, query(),
        {"index": "theirs"}, query(colour=1),
    ]  # fmt: skip
    status, answer, _ = send(address, "/_msearch", *lines)

    first, second, *refused = answer["responses"]
    assert status == 200
    assert first["hits"]["total"] == {"value": 2}
    assert [hit["_id"] for hit in second["hits"]["hits"]] == ["a", "b"]
    assert [each["status"] for each in refused] == [400, 400]
    assert b'{"index": "plain"}\n{"size": 0}\n' in node.bulks


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/_search", "one collection"),
        ("/theirs,plain/_search", "one collection"),
        ("/their*/_search", "one collection"),
        ("/plain/_search", "no vectors"),
        ("/absent/_search", "no vectors"),
        ("/theirs/_search?scroll=1m", "scroll"),
    ],
)
def test_searches_that_cannot_be_answered_are_refused(node, address, path, reason):
    """The error names what the query needs; the node is not searched."""
    status, answer, _ = send(address, path, query())

    assert status == 400
    assert reason in answer["error"]["reason"]
    assert not node.bulks


@pytest.mark.parametrize(
    ("clause", "reason"), [({"where": "n >"}, "filter, column 4"), ({"mode": "dense"}, "no dense field")]
)
def test_mistakes_in_a_query_are_named(address, clause, reason):
    """A filter that cannot be read, and a leg that the index lacks, are errors of the request."""
    status, answer, _ = send(address, "/theirs/_search", query(**clause))

    assert status == 400
    assert reason in answer["error"]["reason"]


@pytest.mark.parametrize("failure", [400, 403, 503])
def test_failures_of_the_node_keep_their_status(node, address, failure):
    """A search that the engine refuses is refused with its status and its reason."""
    send(address, "/theirs/_search", query(mode="text"))
    node.status = failure
    status, answer, _ = send(address, "/theirs/_search", query(mode="text"))

    assert status == failure
    assert "as prepared" in answer["error"]["reason"]


def test_credentials_of_the_client_are_those_of_the_search(node, address):
    """The search is executed with the rights of the client that asks."""
    send(address, "/theirs/_search", query(mode="text"), authorization="ApiKey abc")

    assert {headers.get("authorization") for headers in node.headers if "authorization" in headers} == {"ApiKey abc"}
    assert [path for path, headers in zip(node.paths, node.headers, strict=True) if "authorization" not in headers] in (
        [],
        ["GET /"],
    )
