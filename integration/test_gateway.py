"""The gateway in front of Elasticsearch 9 and 8 and of OpenSearch, with the clients of both.

Documents written as text through the gateway are those that ``Index.ingest`` writes, searches have its hits, and
everything else is the same with and without it.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from integration.stores import address_of
from st_connectors import Index
from st_connectors.elasticsearch import wire
from st_connectors.schema import Schema
from st_connectors.store import Parts

pytest.importorskip("h11", reason="needs the extra server")
elasticsearch = pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")

from elasticsearch import helpers  # noqa: E402 - after the guard

from st_connectors.gateway import Limits, Rule, Settings, serving  # noqa: E402 - after the guard

RULE = Rule("theirs", text="body", dense="embedding", dense_model="builtin:dense")
TOPICS = ("whales", "submarines", "pasta", "rockets", "gardens", "violins", "glaciers")
DOCUMENTS = [
    {"id": str(number), "text": f"chapter {number} about {TOPICS[number % 7]} and {TOPICS[number % 5]}", "year": number}
    for number in range(70)
]
ACTIONS = [{"_id": each["id"], **each} for each in DOCUMENTS]


def gateway(address: str) -> Any:
    """Return a gateway in front of a node."""
    return serving(Settings((address,), rules=(RULE,), limits=Limits(part_documents=30, mapping_s=0.0)))


def send(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request and return the status, headers and body of the answer, without what differs between two calls."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.headers.get("content-encoding") == "gzip":
        content = gzip.decompress(content)
    same = {name.lower(): value for name, value in response.headers.items() if name.lower() != "content-length"}
    return response.status, same, re.sub(rb'"took":\d+', b'"took":0', content)


NDJSON = "application/x-ndjson"
JSON = "application/json"
PLAIN_BULK = b'{"index":{"_index":"plain","_id":"1"}}\n{"n" : 1.50}\n{"delete":{"_index":"plain","_id":"9"}}\n'
CALLS = (
    ("GET", "/", b"", {}),
    ("HEAD", "/plain", b"", {}),
    ("GET", "/plain/_mapping?pretty", b"", {}),
    ("GET", "/absent/_doc/1", b"", {}),
    ("GET", "/plain/_doc/1", b"", {"accept_encoding": "gzip"}),
    ("POST", "/plain/_search", b'{"query":{"match_all":{}}}', {"content_type": JSON}),
    ("POST", "/plain/_search", gzip.compress(b'{"size":0}'), {"content_type": JSON, "content_encoding": "gzip"}),
    ("POST", "/plain/_search", b'{"query":', {"content_type": JSON}),
    ("POST", "/_msearch", b'{"index":"plain"}\n{"size":0}\n', {"content_type": NDJSON}),
    ("POST", "/_bulk?refresh=true&filter_path=items.*.status", PLAIN_BULK, {"content_type": NDJSON}),
    ("POST", "/_bulk", PLAIN_BULK + b"nonsense\n", {"content_type": NDJSON}),
    ("POST", "/_bulk", PLAIN_BULK.rstrip(), {"content_type": NDJSON}),
    ("POST", "/_bulk", b"", {"content_type": NDJSON}),
    ("PUT", "/plain/_doc/7", b"{broken", {"content_type": JSON}),
    ("POST", "/plain/_update/77", b'{"doc":{"n":2}}', {"content_type": JSON}),
    ("POST", "/plain/_flush", b"{}", {"content_type": "text/nothing"}),
    ("DELETE", "/_search/scroll", b'{"scroll_id":"x"}', {"content_type": JSON}),
)


def assert_same_with_and_without(url: str, address: str) -> None:
    """Compare the answers to requests that have nothing to do with vectors."""
    send(url, "PUT", "/plain", b'{"settings":{"number_of_replicas":0}}', content_type=JSON)
    send(url, "POST", "/_bulk?refresh=true", PLAIN_BULK, content_type=NDJSON)
    with gateway(address) as through:
        for method, path, body, headers in CALLS:
            direct = [send(url, method, path, body, **headers) for _ in range(2)]
            ours = send(through, method, path, body, **headers)
            if direct[0] == direct[1]:
                assert ours == direct[0], (method, path)
            else:  # sequence numbers count up
                assert re.sub(rb"\d+", b"0", ours[2]) == re.sub(rb"\d+", b"0", direct[0][2]), (method, path)
                assert ours[:2] == direct[0][:2], (method, path)
    send(url, "DELETE", "/plain")


def create(address: str, collection: str) -> Index:
    """Create a collection anew."""
    names = {"dense": "builtin:dense", "sparse": "builtin:sparse"}
    options = {"collection": collection, "text": True, "filterable": {"year": "int"}, **names}
    Index.create(address, **options).drop()
    return Index.create(address, **options)


def assert_same_records(index: Index, other: Index) -> None:
    """Compare all records of two collections."""
    for one in (index, other):
        one.store.refresh()
    stored = {record.id: record for record in index.store.scan(parts=Parts.ALL)}
    assert len(stored) == other.count()
    for record in other.store.scan(parts=Parts.ALL):
        same = stored[record.id]
        assert same.payload == record.payload
        assert same.vectors.keys() == record.vectors.keys()
        np.testing.assert_allclose(same.vectors["dense"], record.vectors["dense"], atol=1e-6)
        if "sparse" in record.vectors:
            assert same.vectors["sparse"].indices.tolist() == record.vectors["sparse"].indices.tolist()
            np.testing.assert_allclose(same.vectors["sparse"].values, record.vectors["sparse"].values, rtol=1e-6)


@pytest.fixture(scope="class")
def nine(engines) -> str:
    """Return the URL of Elasticsearch 9."""
    return engines.url("elasticsearch-9")


@pytest.fixture(scope="class")
def ingested(nine) -> Iterator[Index]:
    """Return a collection that ``Index.ingest`` filled."""
    with create(address_of("elasticsearch-9", nine), "ingested") as index:
        index.ingest(DOCUMENTS)
        yield index
        index.drop()


@pytest.fixture
def filled(nine) -> Iterator[Index]:
    """Return an empty collection for a test to fill."""
    with create(address_of("elasticsearch-9", nine), "filled") as index:
        yield index
        index.drop()


@pytest.fixture(scope="class")
def through(nine) -> Iterator[str]:
    """Return the URL of a gateway in front of Elasticsearch 9."""
    with gateway(address_of("elasticsearch-9", nine)) as address:
        yield address


@pytest.mark.engine("elasticsearch-9")
@pytest.mark.client_at_least(9)
class TestNine:
    """Elasticsearch 9 with its own client."""

    @pytest.mark.parametrize("way", ["bulk", "streaming_bulk", "parallel_bulk", "compressed"])
    def test_bulk_helpers_write_what_ingest_writes(self, way, through, filled, ingested):
        """Every helper of the client, also with compression, and in any division of documents."""
        with elasticsearch.Elasticsearch(through, http_compress=way == "compressed", request_timeout=60) as client:
            helper = helpers.bulk if way == "compressed" else getattr(helpers, way)
            options = {"chunk_size": 23} | ({"thread_count": 3} if way == "parallel_bulk" else {})
            done = helper(client, [{"_index": "filled", **each} for each in ACTIONS], **options)
            results = list(done) if way in ("streaming_bulk", "parallel_bulk") else done

        assert results == (70, []) or all(ok for ok, _ in results)
        assert_same_records(filled, ingested)

    def test_large_bodies(self, through, filled):
        """A body of ten megabytes is written in parts, and answered as one request."""
        lines = [
            json.dumps(each)
            for number in range(650)
            for each in ({"index": {"_id": str(number)}}, {"text": f"document {number}", "note": "x" * 16_000})
        ]
        body = ("\n".join(lines) + "\n").encode()
        status, _, answer = send(through, "POST", "/filled/_bulk?refresh=true", body, content_type=NDJSON)

        parsed = json.loads(answer)
        assert len(body) > 10_000_000
        assert (status, parsed["errors"], len(parsed["items"])) == (200, False, 650)
        assert [item["index"]["_id"] for item in parsed["items"]] == [str(number) for number in range(650)]
        [record] = filled.store.get(["649"], parts=Parts.ALL)
        assert {"dense", "sparse"} <= record.vectors.keys()
        assert filled.count() == 650

    def test_mixed_actions_with_errors(self, through, nine, filled):
        """Deletions, scripts, updates and malformed documents have the results that the engine gives them."""
        lines = (
            b'{"index":{"_index":"filled","_id":"1"}}\n{"text":"whales"}\n'
            b'{"create":{"_index":"filled","_id":"1"}}\n{"text":"again"}\n'
            b'{"delete":{"_index":"filled","_id":"absent"}}\n'
            b'{"update":{"_index":"filled","_id":"1"}}\n{"script":{"lang":"none","source":"x"}}\n'
            b'{"index":{"_index":"filled","_id":"2"}}\n{broken\n'
            b'{"index":{"_index":"filled","_id":"3"}}\n{"title":"no text"}\n'
            b'{"update":{"_index":"filled","_id":"1"}}\n{"doc":{"year":7}}\n'
            b'{"delete":{"_index":"filled","_id":"1"}}\n'
        )
        _, _, answer = send(through, "POST", "/_bulk?refresh=true", lines, content_type=NDJSON)

        results = [(*item, *(each["status"] for each in item.values())) for item in json.loads(answer)["items"]]
        assert results == [
            ("index", 201), ("create", 409), ("delete", 404), ("update", 400),
            ("index", 400), ("index", 400), ("update", 400), ("delete", 200),
        ]  # fmt: skip
        assert filled.count() == 0
        malformed = lines + b'{"index":1}\n{}\n'
        ours, theirs = (send(each, "POST", "/_bulk", malformed, content_type=NDJSON) for each in (through, nine))
        assert (ours[0], re.sub(rb"\[\d+\]", b"[]", ours[2])) == (theirs[0], re.sub(rb"\[\d+\]", b"[]", theirs[2]))

    @pytest.mark.parametrize("mode", ["dense", "sparse", "text", "hybrid"])
    def test_searches_have_the_hits_of_the_library(self, mode, through, ingested):
        """Ids and scores are those of ``Index.search``, with a filter and a page."""
        ingested.store.refresh()
        clause = {"query": "under the sea", "mode": mode, "where": "year >= 10"}
        with elasticsearch.Elasticsearch(through) as client:
            answer = client.search(index="ingested", query={"st_connectors": clause}, size=5, from_=2)

        expected = ingested.search("under the sea", mode=mode, where="year >= 10", limit=5, offset=2)
        assert [hit["_id"] for hit in answer["hits"]["hits"]] == [hit.id for hit in expected]
        assert [hit["_score"] for hit in answer["hits"]["hits"]] == pytest.approx([hit.score for hit in expected])
        assert [hit["_source"] for hit in answer["hits"]["hits"]] == [hit.payload for hit in expected]

    def test_multi_search_mixes_both_queries(self, through, ingested):
        """Each response is that of its search, an error among them."""
        ingested.store.refresh()
        ours = {"query": {"st_connectors": {"query": "pasta"}}, "size": 1}
        searches = [
            {"index": "ingested"}, {"query": {"match_all": {}}, "size": 0},
            {"index": "ingested"}, ours,
            {"index": "absent"}, ours,
        ]  # fmt: skip
        with elasticsearch.Elasticsearch(through) as client:
            answer = client.msearch(searches=searches)["responses"]

        assert answer[0]["hits"]["total"]["value"] == 70
        assert answer[1]["hits"]["hits"][0]["_id"] == ingested.search("pasta", limit=1)[0].id
        assert answer[2]["status"] == 400

    def test_index_of_another_program(self, through, nine):
        """A rule adds vectors to their documents, keeps them through updates, and makes them searchable."""
        from st_core import SentenceTransformer

        model = SentenceTransformer("builtin:dense")
        vector = {"type": "dense_vector", "dims": model.get_embedding_dimension(), "similarity": "cosine"}
        with elasticsearch.Elasticsearch(through) as client:
            client.options(ignore_status=404).indices.delete(index="theirs")
            client.indices.create(
                index="theirs", mappings={"properties": {"embedding": vector, "body": {"type": "text"}}}
            )
            client.index(index="theirs", id="1", document={"body": "a whale hunts a ship"})
            client.update(index="theirs", id="1", doc={"body": "cooking pasta"})
            client.index(index="theirs", document={"body": "rockets to the moon"}, refresh=True)
            stored = client.get(index="theirs", id="1", source_includes=["embedding"])["_source"]["embedding"]
            answer = client.search(index="theirs", query={"st_connectors": {"query": "food", "mode": "dense"}})
            client.indices.delete(index="theirs")

        expected = model.encode_document(["cooking pasta"])[0]
        cosine = np.dot(stored, expected) / np.linalg.norm(stored) / np.linalg.norm(expected)
        assert cosine == pytest.approx(1.0, abs=1e-6)
        assert answer["hits"]["hits"][0]["_source"] == {"body": "cooking pasta"}
        assert len(answer["hits"]["hits"]) == 2

    def test_everything_else_is_the_same(self, nine):
        """Statuses, headers and bodies are those of a direct call."""
        assert_same_with_and_without(nine, address_of("elasticsearch-9", nine))


@pytest.mark.engine("elasticsearch-8")
class TestEight:
    """Elasticsearch 8, which clients of version 9 cannot talk to: the gateway can."""

    @pytest.fixture(scope="class")
    @classmethod
    def eight(cls, engines) -> str:
        """Return the URL of Elasticsearch 8."""
        return engines.url("elasticsearch-8")

    def test_everything_else_is_the_same(self, eight):
        """Statuses, headers and bodies are those of a direct call."""
        assert_same_with_and_without(eight, address_of("elasticsearch-8", eight))

    def test_texts_arrive_with_vectors_and_are_found(self, eight):
        """A bulk request of texts and a search by text work without any client."""
        from st_connectors.models import ModelOptions
        from st_connectors.schemas import build_schema, lazy_models

        models = lazy_models("builtin:dense", "builtin:sparse", ModelOptions("torch", None))
        schema: Schema = build_schema("filled", models, None, text=True, filterable={"year": "int"}, fusion=None)
        body = wire.index_body(schema, wire.form_for(schema), "8.19.0", {}) | {"aliases": {"filled": {}}}
        send(eight, "DELETE", "/filled%401")
        send(eight, "PUT", "/filled%401", json.dumps(body).encode(), content_type=JSON)
        lines = [each for document in DOCUMENTS for each in ({"index": {"_id": document["id"]}}, document)]
        search = {"query": {"st_connectors": {"query": "pasta", "where": "year < 50"}}, "size": 3}
        with gateway(address_of("elasticsearch-8", eight)) as through:
            bulk = "".join(json.dumps(each) + "\n" for each in lines).encode()
            _, _, written = send(through, "POST", "/filled/_bulk?refresh=true", bulk, content_type=NDJSON)
            _, _, found = send(through, "POST", "/filled/_search", json.dumps(search).encode(), content_type=JSON)
        send(eight, "DELETE", "/filled%401")

        assert json.loads(written)["errors"] is False
        hits = json.loads(found)["hits"]["hits"]
        assert len(hits) == 3
        assert all("pasta" in hit["_source"]["text"] and hit["_source"]["year"] < 50 for hit in hits)


@pytest.mark.engine("opensearch")
class TestOpenSearch:
    """OpenSearch with its own client."""

    def test_bulk_and_search(self, engines):
        """opensearch-py writes texts by its helper, and finds what the library finds."""
        opensearchpy = pytest.importorskip("opensearchpy", reason="needs the opensearch extra")
        url = engines.url("opensearch")
        address = address_of("opensearch", url)
        with create(address, "ingested") as ingested, create(address, "filled") as filled, gateway(address) as through:
            ingested.ingest(DOCUMENTS)
            client = opensearchpy.OpenSearch(through, http_compress=True)
            done = opensearchpy.helpers.bulk(client, [{"_index": "filled", **each} for each in ACTIONS], refresh=True)
            assert done == (70, [])
            assert_same_records(filled, ingested)
            body = {"query": {"st_connectors": {"query": "violins", "mode": "hybrid"}}, "size": 4}
            hits = client.search(index="filled", body=body)["hits"]["hits"]
            client.close()
            assert [hit["_id"] for hit in hits] == [hit.id for hit in filled.search("violins", mode="hybrid", limit=4)]
            ingested.drop()
            filled.drop()

    def test_everything_else_is_the_same(self, engines):
        """Statuses, headers and bodies are those of a direct call."""
        url = engines.url("opensearch")
        assert_same_with_and_without(url, address_of("opensearch", url))
