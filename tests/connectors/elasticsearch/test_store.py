"""The store with a stub server on the loopback interface: requests, their number, and results of answers."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from socketserver import BaseRequestHandler

import numpy as np
import pytest
from reading_smile import read_bulk

from st_connectors import collections, open_store
from st_connectors._lucene.encoding import decode_json, encode_json
from st_connectors._lucene.forms import Form
from st_connectors._lucene.layout import OwnLayout
from st_connectors.elasticsearch import wire
from st_connectors.errors import (
    NotFound,
    Permanent,
    Refused,
    SchemaMismatch,
    StoreError,
    Throttled,
    Unavailable,
    Unsupported,
)
from st_connectors.filters import Eq
from st_connectors.layers.retry import NO_RETRY, RetryPolicy
from st_connectors.registry import adopt_store
from st_connectors.schema import DenseField, FilterKind, Rrf, Schema, SparseField, TextField
from st_connectors.store import Fuse, Match, Near, Parts, Record, SearchRequest
from st_connectors.testing.serving import Serving
from st_core.vectors import SparseVector

elasticsearch = pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")

SCHEMA = Schema("books", {"dense": DenseField(2), "text": TextField()}, {"year": FilterKind.INT})
UP = np.array([0.0, 1.0], np.float32)
MAPPINGS = wire.index_body(SCHEMA, wire.form_for(SCHEMA), "9.5.3", {})["mappings"]
OURS = {"books@1": {"mappings": MAPPINGS}}
MISSING = {"error": {"type": "index_not_found_exception", "reason": "no such index [books]"}, "status": 404}
AT_ONCE = RetryPolicy(attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)


@pytest.fixture
def stub(lucene_stub):
    """Start a stub of an Elasticsearch server."""
    return lucene_stub("elasticsearch")


@pytest.fixture
def books(stub):
    """Open the collection books for its schema."""
    store = open_store(stub.address, "books", SCHEMA, retry=NO_RETRY)
    yield store
    store.close()


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_create_creates_the_index_with_its_alias(stub, books):
    """The index is created once, with its alias in the same request, after the server's version is checked."""
    stub.on("GET", "/books/_mapping", (404, MISSING), OURS)
    stub.on("PUT", "/books@1", {"acknowledged": True})
    books.create()

    assert stub.requested() == [
        ("GET", "/books/_mapping"),
        ("GET", "/"),
        ("PUT", "/books@1"),
        ("GET", "/books/_mapping"),
    ]
    body = json.loads(stub.seen[2][3])
    assert body["aliases"] == {"books": {"is_write_index": True}}
    assert body["mappings"] == MAPPINGS


def test_a_second_create_only_reads(stub, books):
    """Nothing is written to an existing collection."""
    stub.on("GET", "/books/_mapping", OURS)
    books.create()
    assert stub.requested() == [("GET", "/books/_mapping")]


def test_create_accepts_an_index_that_another_client_created(stub, books):
    """An index that appears between two requests is compared with the schema; one without its alias is a mismatch."""
    exists = {"error": {"type": "resource_already_exists_exception", "reason": "already exists"}, "status": 400}
    stub.on("GET", "/books/_mapping", (404, MISSING), OURS)
    stub.on("PUT", "/books@1", (400, exists))
    books.create()
    stub.on("GET", "/books/_mapping", (404, MISSING))
    with pytest.raises(SchemaMismatch, match="without the alias 'books'"):
        books.create()


def test_a_server_too_old_gets_no_index(stub, books):
    """The error has the server's version, and no index is created."""
    stub.on("GET", "/", {"version": {"number": "8.11.0"}})
    with pytest.raises(Unsupported, match=r"Elasticsearch 8\.11\.0"):
        books.create()
    assert ("PUT", "/books@1") not in stub.requested()


def test_a_client_newer_than_the_server_is_unsupported(stub, books):
    """The error names the version of the client to install."""
    reason = "Accept version must be either version 8 or 7, but found 9"
    error = {"error": {"type": "media_type_header_exception", "reason": reason}, "status": 400}
    stub.on("GET", "/books/_mapping", (400, error))
    with pytest.raises(Unsupported, match=r"is newer than the server .* pip install 'elasticsearch<\d+'"):
        books.create()


def test_an_index_that_we_did_not_create_is_not_changed(stub, books):
    """It is neither opened, nor created, nor dropped; the error names ``Index.adopt``."""
    stub.on("GET", "/books/_mapping", {"books": {"mappings": {"properties": {"title": {"type": "text"}}}}})
    for call in (books.create, books.drop, lambda: open_store(stub.address, "books", retry=NO_RETRY)):
        with pytest.raises(SchemaMismatch, match=r"Index\.adopt"):
            call()
    assert {method for method, _ in stub.requested()} == {"GET"}


def test_a_collection_is_opened_by_its_name(stub):
    """Its schema and form are read from the mapping."""
    stub.on("GET", "/books/_mapping", OURS)
    store = open_store(stub.address, "books", retry=NO_RETRY)
    assert store.schema == SCHEMA
    with pytest.raises(NotFound, match="there is no collection 'films'"):
        open_store(stub.address, "films", retry=NO_RETRY)


def test_names_that_no_index_can_have_are_sent_nowhere(stub):
    """A name such as ``*`` would address every index."""
    for name in ("*", "Books", "_all", "a,b"):
        with pytest.raises(ValueError, match="cannot be an index"):
            open_store(stub.address, name, Schema(name, {"dense": DenseField(2)}))
        with pytest.raises(ValueError, match="cannot be an index"):
            adopt_store(stub.address, name)
    assert stub.seen == []


def test_drop_removes_the_index_itself(stub, books):
    """The alias cannot be deleted like an index, so the index is."""
    stub.on("GET", "/books/_alias", {"books@1": {"aliases": {"books": {}}}}, (404, MISSING))
    stub.on("GET", "/books/_mapping", OURS, (404, MISSING))
    stub.on("DELETE", "/books@1", {"acknowledged": True})
    books.drop()
    books.drop()
    checks = [("GET", "/books/_alias"), ("GET", "/books/_mapping")]
    assert stub.requested() == [*checks, ("DELETE", "/books@1"), *checks]


def test_writes_go_through_the_alias(stub, books):
    """A bulk request requires the alias, so that it never creates an index; each item has its own error."""
    busy = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
    bad = {"type": "document_parsing_exception", "reason": "no"}
    items = [
        {"index": {"status": 201}},
        {"index": {"status": 429, "error": busy}},
        {"index": {"status": 400, "error": bad}},
    ]
    stub.on("POST", "/books/_bulk", {"errors": True, "items": items})
    rejected = books.upsert([Record(name, {"dense": UP}, {"year": 1}) for name in "abc"])

    assert [(item.position, item.id, type(item.error), item.error.status) for item in rejected] == [
        (1, "b", Throttled, 429),
        (2, "c", Refused, 400),
    ]
    (_, _, options, text, _) = stub.seen[0]
    assert options["require_alias"] == ["true"]
    assert read_bulk(text)[:2] == [
        {"index": {"_id": "a"}},
        decode_json(encode_json(OwnLayout(SCHEMA).to_source(Record("a", {"dense": UP}, {"year": 1})))),
    ]


def test_only_throttled_items_go_again(stub):
    """The retry layer sends only the record that was throttled."""
    busy = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
    stub.on(
        "POST",
        "/books/_bulk",
        {"errors": True, "items": [{"index": {"status": 201}}, {"index": {"status": 429, "error": busy}}]},
        {"errors": False, "items": [{"index": {"status": 201}}]},
    )
    store = open_store(stub.address, "books", SCHEMA, retry=AT_ONCE)
    assert store.upsert([Record("a", {"dense": UP}), Record("b", {"dense": UP})]) == []
    assert [read_bulk(text)[0] for _, _, _, text, _ in stub.seen] == [{"index": {"_id": "a"}}, {"index": {"_id": "b"}}]
    assert len(read_bulk(stub.seen[1][3])) == 2


def test_a_batch_of_searches_is_one_request(stub, books):
    """Results have the order of the requests; one that failed raises its own error."""
    response = {
        "status": 200,
        "hits": {"hits": [{"_id": "a", "_score": None, "sort": [1.0, "a"], "_source": {"payload": '{"k":1}'}}]},
    }
    stub.on(
        "POST",
        "/books/_msearch",
        {"responses": [response, {"status": 200, "hits": {"hits": []}}]},
        {"responses": [response, MISSING]},
    )
    requests = [SearchRequest(Near("dense", UP), parts=Parts.PAYLOAD), SearchRequest(Match("text", "tea"))]
    first, second = books.search(requests)
    assert [(hit.id, hit.score, hit.payload) for hit in first] == [("a", 1.0, {"k": 1})]
    assert second == []
    assert len(stub.seen) == 1
    assert [line for line in lines_of(stub.seen[0][3]) if "query" not in line] == [
        {"allow_partial_search_results": False},
        {"allow_partial_search_results": False, "search_type": "dfs_query_then_fetch"},
    ]
    with pytest.raises(NotFound):
        books.search(requests)


def document(record_id, place):
    return {"_id": record_id, "_source": {"payload": "{}"}, "sort": [place]}


def test_a_scan_closes_its_point_in_time(stub, books):
    """Its id may change from page to page; it is closed at the end, and when the scan is stopped early."""
    pages = [
        {"pit_id": "p2", "hits": {"hits": [document("a", 1), document("b", 2)]}},
        {"pit_id": "p3", "hits": {"hits": [document("c", 3)]}},
    ]

    stub.on("POST", "/books/_pit", {"id": "p1"})
    stub.on("POST", "/_search", *pages, pages[0])
    stub.on("DELETE", "/_pit", {"succeeded": True})

    assert [record.id for record in books.scan(where=Eq("year", 1), batch=2)] == ["a", "b", "c"]
    bodies = [json.loads(text) for method, path, _, text, _ in stub.seen if path in {"/_search", "/_pit"}]
    assert [body.get("pit", {}).get("id", body.get("id")) for body in bodies] == ["p1", "p2", "p3"]
    assert [body.get("search_after") for body in bodies] == [None, [2], None]

    stub.seen.clear()
    scan = books.scan(batch=2)
    assert next(scan).id == "a"
    scan.close()
    assert stub.requested()[-1] == ("DELETE", "/_pit")


def test_an_expired_point_in_time_is_no_missing_collection(stub, books):
    """The scan paused too long, and a retry cannot help."""
    cause = {"type": "search_context_missing_exception", "reason": "No search context found"}
    late = {"error": {"type": "search_phase_execution_exception", "root_cause": [cause]}, "status": 404}
    stub.on("POST", "/books/_pit", {"id": "p1"})
    stub.on("POST", "/_search", (404, late))
    with pytest.raises(Permanent, match="start it again") as caught:
        list(books.scan())
    assert not isinstance(caught.value, NotFound)


def test_counts_and_refreshes_need_all_shards(stub, books):
    """An answer from some of the shards is an error."""
    shards = {"failed": 1, "failures": [{"reason": {"type": "no_shard_available", "reason": "gone"}}]}
    stub.on("POST", "/books/_count", {"count": 3, "_shards": shards})
    stub.on("POST", "/books/_refresh", {"_shards": shards})
    for call in (books.count, books.refresh):
        with pytest.raises(Unavailable, match="gone"):
            call()


def test_get_keeps_the_order_of_the_ids(stub, books):
    """Absent ids are omitted; a missing collection is an error, although the server answers 200."""
    docs = [{"_id": "b", "found": True, "_source": {"payload": '{"k":2}'}}, {"_id": "x", "found": False}]
    stub.on("POST", "/books/_mget", {"docs": docs}, {"docs": [{"_id": "b", "error": MISSING["error"]}]})
    assert [(record.id, record.payload) for record in books.get(["b", "x"])] == [("b", {"k": 2})]
    with pytest.raises(NotFound):
        books.get(["b"])


def test_the_key_comes_from_the_environment(stub, monkeypatch):
    """It is never part of a message."""
    monkeypatch.setenv("ST_ELASTICSEARCH_API_KEY", "s3cr3t")
    stub.on("GET", "/books/_mapping", (401, {"error": {"type": "security_exception", "reason": "no"}}))
    with pytest.raises(Permanent, match="ST_ELASTICSEARCH_API_KEY") as caught:
        open_store(stub.address, "books", retry=NO_RETRY)
    assert stub.seen[0][4]["authorization"] == "ApiKey s3cr3t"
    assert "s3cr3t" not in str(caught.value) + repr(caught.value.__cause__)


def test_user_and_password_come_from_the_environment(stub, monkeypatch):
    """For basic authentication; the user is elastic unless another is set, and the password is never in a message."""
    monkeypatch.setenv("ST_ELASTICSEARCH_PASSWORD", "s3cr3t")
    stub.on("GET", "/books/_mapping", (401, {"error": {"type": "security_exception", "reason": "no"}}))
    for name, variables in (("elastic", {}), ("ada", {"ST_ELASTICSEARCH_USERNAME": "ada"})):
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        with pytest.raises(Permanent, match="ST_ELASTICSEARCH_USERNAME and ST_ELASTICSEARCH_PASSWORD") as caught:
            open_store(stub.address, "books", retry=NO_RETRY)
        sent = base64.b64decode(stub.seen[-1][4]["authorization"].removeprefix("Basic ")).decode()
        assert sent == f"{name}:s3cr3t"
        assert "s3cr3t" not in str(caught.value) + repr(caught.value.__cause__)


def test_a_key_and_a_password_are_one_too_many(stub, monkeypatch):
    """Which of them the caller means is not guessed."""
    monkeypatch.setenv("ST_ELASTICSEARCH_API_KEY", "s3cr3t")
    monkeypatch.setenv("ST_ELASTICSEARCH_PASSWORD", "s3cr3t")
    with pytest.raises(ValueError, match="unset ST_ELASTICSEARCH_API_KEY or ST_ELASTICSEARCH_PASSWORD") as caught:
        open_store(stub.address, "books", SCHEMA)
    assert "s3cr3t" not in str(caught.value)
    assert stub.seen == []


def test_tls_to_a_server_without_tls_is_permanent(stub):
    """A retry cannot help."""
    address = stub.address.replace("elasticsearch:", "elasticsearch+https:")
    with pytest.raises(Permanent, match=r"TLS failed: .*does the server speak TLS"):
        open_store(address, "books", retry=NO_RETRY)


def test_a_server_that_hangs_up_may_speak_tls():
    """A TLS server closes a plain connection; the message says how to write the address."""

    class HangUp(BaseRequestHandler):
        def handle(self):
            self.request.recv(65_536)

    with (
        Serving(HangUp) as server,
        pytest.raises(Unavailable, match=r"if it speaks TLS, write elasticsearch\+https://"),
    ):
        open_store(f"elasticsearch://{server.host}:{server.port}", "books", retry=NO_RETRY)


@pytest.mark.parametrize("cut", [b'{"count": 2, ', '{"é'.encode()[:-1]])
def test_an_answer_that_was_cut_off_is_recognised_with_a_callers_client(stub, cut):
    """This client parses answers before it looks at their status."""
    stub.answers["POST", "/books/_count"] = [(200, {}, cut)]
    with elasticsearch.Elasticsearch(f"http://127.0.0.1:{stub.port}") as client:
        store = open_store(stub.address, "books", SCHEMA, client=client, retry=NO_RETRY)
        with pytest.raises(Unavailable, match="the answer was cut off"):
            store.count()


def test_a_callers_client_is_used_and_stays_open(stub):
    """Its retries are turned off for the store only."""
    stub.on("POST", "/books/_count", (503, {}), {"count": 2, "_shards": {"failed": 0}})
    with elasticsearch.Elasticsearch(f"http://127.0.0.1:{stub.port}", max_retries=5) as client:
        store = open_store(stub.address, "books", SCHEMA, client=client, retry=NO_RETRY)
        with pytest.raises(Unavailable):
            store.count()
        store.close()
        assert client.count(index="books")["count"] == 2
    assert len(stub.seen) == 2
    with pytest.raises(TypeError, match=r"elasticsearch\.Elasticsearch"):
        open_store(stub.address, "books", SCHEMA, client=object())


def test_a_closed_store_sends_nothing(stub, books):
    """Every call raises an error."""
    books.close()
    with pytest.raises(Permanent, match="closed"):
        books.count()
    assert stub.seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sparse=splade", "unknown sparse"),
        ("dense_index=ivf", "unknown dense_index"),
        ("shards=0", "shards must be a whole number of at least 1"),
        ("replicas=x", "replicas must be a whole number of at least 0"),
        ("analyzer=en-US", "analyzer must be the name of an analyser, such as english, not 'en-US'"),
        ("timeout=0", "timeout must be a number of seconds above 0"),
        ("timeout=-1", "timeout must be a number of seconds above 0"),
        ("color=red", "unknown option 'color'"),
    ],
)
def test_invalid_options_are_refused(stub, options, message):
    """The message has the valid values, and nothing is sent."""
    with pytest.raises(ValueError, match=message):
        open_store(f"{stub.address}?{options}", "books", SCHEMA)
    assert stub.seen == []


def test_options_reach_the_index(stub):
    """Shards, replicas and the forms of vectors are those of the address."""
    stub.on("GET", "/books/_mapping", (404, MISSING))
    stub.on("PUT", "/books@1", {"acknowledged": True})
    store = open_store(f"{stub.address}?shards=3&replicas=0&dense_index=flat", "books", SCHEMA, retry=NO_RETRY)
    with pytest.raises(SchemaMismatch):
        store.create()
    body = json.loads(next(text for method, _, _, text, _ in stub.seen if method == "PUT"))
    assert body["settings"]["index"]["number_of_shards"] == 3
    assert body["settings"]["index"]["number_of_replicas"] == 0
    assert body["mappings"]["properties"]["vector"]["properties"]["dense"]["index_options"] == {"type": "flat"}


def test_the_analyser_of_texts_is_chosen_once(stub):
    """It reaches the mapping and is stored; a collection of another is a mismatch if the address names one."""
    address = f"{stub.address}?analyzer=english"
    english = wire.index_body(SCHEMA, wire.form_for(SCHEMA, analyzer="english"), "9.5.3", {})["mappings"]
    stub.on("GET", "/books/_mapping", (404, MISSING), {"books@1": {"mappings": english}})
    stub.on("PUT", "/books@1", {"acknowledged": True})
    open_store(address, "books", SCHEMA, retry=NO_RETRY).create()
    sent = json.loads(next(text for method, _, _, text, _ in stub.seen if method == "PUT"))["mappings"]
    assert sent == english
    assert sent["properties"]["text"] == {"properties": {"text": {"type": "text", "analyzer": "english"}}}

    open_store(stub.address, "books", SCHEMA, retry=NO_RETRY).create()
    stub.on("GET", "/books/_mapping", OURS)
    with pytest.raises(SchemaMismatch, match="analyses its texts by standard, not by english: leave analyzer out"):
        open_store(address, "books", SCHEMA, retry=NO_RETRY).create()
    assert MAPPINGS["_meta"] != english["_meta"]
    assert "text" not in json.loads(MAPPINGS["_meta"]["st_connectors"])


def test_collections_lists_our_own(stub):
    """They are sorted and have the names of their schemas."""
    other = wire.index_body(Schema("a", {"dense": DenseField(2)}), Form({}, {"dense": "hnsw"}), "9.5.3", {})
    meta = {"_meta": other["mappings"]["_meta"]}
    stub.on("GET", "/_mapping", {"books@1": {"mappings": MAPPINGS}, "a@1": {"mappings": meta}})
    assert collections(stub.address) == ["a", "books"]
    assert "filter_path" in stub.seen[0][2]


TRIAL = {"license": {"type": "trial", "status": "active"}}
BASIC = {"license": {"type": "basic", "status": "active"}}
ONE_SHARD = {"books@1": {"settings": {"index": {"number_of_shards": "1"}}}}
REFUSED = (403, {"error": {"type": "security_exception", "reason": "current license is non-compliant"}})
HYBRID = SearchRequest(Fuse((Near("dense", UP), Match("text", "tea")), 20, Rrf(5)), limit=3, parts=Parts.PAYLOAD)


def hit(record_id, score):
    return {"_id": record_id, "_score": score, "_source": {"payload": "{}"}}


def answers(*pages):
    return {"responses": [{"status": 200, "hits": {"hits": page}} for page in pages]}


@pytest.fixture
def native(stub):
    """Return a function that opens the collection by name with ``fusion=native``."""

    def opened(licence):
        stub.on("GET", "/books/_mapping", OURS)
        stub.on("GET", "/_license", licence)
        stub.on("GET", "/books/_settings", ONE_SHARD)
        return open_store(f"{stub.address}?fusion=native", "books", retry=NO_RETRY)

    return opened


def test_a_licensed_server_fuses_in_one_search(stub, native):
    """The licence is requested once; hits keep the server's scores, and equal ones are ordered by id."""
    store = native(TRIAL)
    stub.on("POST", "/books/_msearch", answers([hit("c", 0.3), hit("b", 0.2), hit("a", 0.2)]))
    (hits,) = store.search([HYBRID])

    assert [(each.id, each.score) for each in hits] == [("c", 0.3), ("a", 0.2), ("b", 0.2)]
    assert stub.requested().count(("GET", "/_license")) == 1
    _, body = lines_of(stub.seen[-1][3])
    assert body["retriever"]["rrf"]["rank_constant"] == 5
    assert "query" not in body
    store.close()


@pytest.mark.parametrize("licence", [BASIC, REFUSED, (404, {"error": "no handler"})], ids=["basic", "403", "none"])
def test_without_a_licence_one_multi_search_brings_the_legs(stub, native, licence):
    """The legs are fused in the client, and nothing that needs the licence is sent."""
    store = native(licence)
    assert store.capabilities.fusion == frozenset()
    stub.on("POST", "/books/_msearch", answers([hit("a", 1.0), hit("b", 0.9)], [hit("b", 2.0)]))
    stub.on(
        "POST", "/books/_mget", {"docs": [{"_id": each, "found": True, "_source": {"payload": "{}"}} for each in "ba"]}
    )
    (hits,) = store.search([HYBRID])

    assert [(each.id, each.score) for each in hits] == [("b", 1 / 7 + 1 / 6), ("a", 1 / 6)]
    (search,) = [one for one in stub.seen if one[1] == "/books/_msearch"]
    assert ["retriever" in line for line in lines_of(search[3])] == [False] * 4
    store.close()


def test_the_licence_is_requested_only_for_native_fusion(stub, books):
    """A connection without ``fusion=native`` sends no request for it."""
    stub.on("GET", "/books/_mapping", OURS)
    books.create()
    assert ("GET", "/_license") not in stub.requested()
    with pytest.raises(ValueError, match="expected one of client, native"):
        open_store(f"{stub.address}?fusion=server", "books")


THEIRS = {
    "emb": {"type": "dense_vector", "dims": 2, "similarity": "dot_product"},
    "ml": {"properties": {"splade": {"type": "sparse_vector"}}},
    "title": {"type": "text"},
    "year": {"type": "integer"},
    "lost": {"type": "dense_vector", "dims": 2, "index": False},
}


@pytest.fixture
def theirs(stub):
    """Adopt an index that another client created."""
    stub.on("GET", "/theirs/_mapping", {"theirs": {"mappings": {"properties": THEIRS}}})
    stub.on("GET", "/theirs/_alias", {"theirs": {"aliases": {}}})
    stub.on("POST", "/theirs/_bulk", {"errors": False, "items": [{"index": {"status": 201}}]})
    store = adopt_store(stub.address, "theirs", retry=NO_RETRY)
    yield store
    store.close()


def test_an_adopted_index_has_the_fields_of_its_mapping(theirs):
    """Field names are paths; vectors that cannot be searched are left out."""
    assert theirs.schema.fields == {
        "emb": DenseField(2),
        "ml.splade": SparseField(),
        "title": TextField("title"),
    }
    assert theirs.schema.filterable == {"year": FilterKind.INT}


def test_an_adopted_index_is_searched_by_its_own_paths(stub, theirs):
    """The payload is the document without its vectors, and dense scores follow their metric."""
    source = {"title": "old tea", "year": 1999}
    response = {"status": 200, "hits": {"hits": [{"_id": "7", "_score": 0.9, "_source": source}]}}
    stub.on("POST", "/theirs/_msearch", {"responses": [response, {"status": 200, "hits": {"hits": []}}]})
    sparse = Near("ml.splade", SparseVector.from_mapping({7: 1.5}))
    (hits, none) = theirs.search([SearchRequest(Near("emb", UP), where=Eq("year", 1999)), SearchRequest(sparse)])

    assert [(hit.id, hit.score, hit.payload) for hit in hits] == [("7", pytest.approx(0.8), source)]
    assert none == []
    _, dense, _, terms = lines_of(stub.seen[-1][3])
    assert dense["query"]["knn"]["field"] == "emb"
    assert dense["query"]["knn"]["filter"] == {"term": {"year": {"value": 1999}}}
    assert dense["_source"] == {"excludes": ["emb", "ml.splade"]}
    assert terms["query"] == wire.sparse_vector_query("ml.splade", {"7": 1.5})


def test_an_adopted_index_is_filled_but_never_created(stub, theirs):
    """It has no alias to require: it is looked up before each write. Nothing of ours is added, nothing is dropped."""
    record = Record("a", {"emb": UP, "ml.splade": SparseVector.from_mapping({7: 0.5})}, {"year": 1, "free": {"x": [1]}})
    assert theirs.upsert([record]) == []
    method, path, options, text, _ = stub.seen[-1]
    assert (method, path) == ("POST", "/theirs/_bulk")
    assert "require_alias" not in options
    assert lines_of(text) == [
        {"index": {"_id": "a"}},
        {"year": 1, "free": {"x": [1]}, "emb": [0.0, 1.0], "ml": {"splade": {"7": 0.5}}},
    ]

    stub.on("GET", "/theirs/_alias", (404, MISSING))
    for write in (lambda: theirs.upsert([record]), lambda: theirs.delete(["a"])):
        with pytest.raises(NotFound):
            write()
    with pytest.raises(Unsupported, match="adopted"):
        theirs.drop()
    assert stub.requested().count(("POST", "/theirs/_bulk")) == 1
    assert not [method for method, *_ in stub.seen if method == "DELETE"]


def test_a_missing_index_cannot_be_adopted(stub):
    """None is created."""
    with pytest.raises(NotFound, match="books"):
        adopt_store(stub.address, "books", retry=NO_RETRY)
    assert stub.requested() == [("GET", "/books/_mapping")]


def test_alter_declares_a_field_indexes_again_and_then_stores_the_schema(stub, books):
    """The mapping gets the field, every document its copy, and the metadata the schema, in this order."""
    altered = replace(SCHEMA, filterable={**SCHEMA.filterable, "meta.tag": FilterKind.KEYWORD}, fusion=Rrf(7))
    record = Record("a", {"dense": UP}, {"year": 1, "text": "x", "meta": {"tag": "y"}})
    before, after = (decode_json(encode_json(OwnLayout(each).to_source(record))) for each in (SCHEMA, altered))
    stub.on("GET", "/books/_mapping", OURS)
    stub.on("PUT", "/books/_mapping", {"acknowledged": True})
    stub.on("POST", "/books/_pit", {"id": "p1"})
    stub.on("POST", "/_search", {"pit_id": "p1", "hits": {"hits": [{"_id": "a", "_source": before, "sort": [1]}]}})
    stub.on("DELETE", "/_pit", {"succeeded": True})
    stub.on("POST", "/books/_bulk", {"items": [{"index": {"_id": "a", "status": 200}}]})
    stub.on("POST", "/books/_refresh", {"_shards": {"failed": 0}})

    books.alter(altered)

    writes = [each for each in stub.requested() if each[1] in {"/books/_bulk", "/books/_mapping"} and each[0] != "GET"]
    assert writes == [("PUT", "/books/_mapping"), ("POST", "/books/_bulk"), ("PUT", "/books/_mapping")]
    [declared], [stored] = (body for _, body in stub.asked("PUT", "/books/_mapping"))
    properties = {"year": {"type": "long"}, "meta-2e-tag": {"type": "keyword"}}
    assert declared == {"properties": {"filter": {"properties": properties}}}
    assert stored == {"_meta": wire.index_body(altered, wire.form_for(altered), "9.5.3", {})["mappings"]["_meta"]}
    [(options, [_, document])] = stub.asked("POST", "/books/_bulk")
    assert options["require_alias"] == ["true"]
    assert document == after
    assert document["filter"] == {"year": [1], "meta-2e-tag": ["y"]}
    assert books.schema == altered


def test_alter_stops_at_a_document_that_cannot_be_indexed_again(stub, books):
    """The error of the document is raised, and the schema is not stored."""
    source = encode_json(OwnLayout(SCHEMA).to_source(Record("a", {"dense": UP}, {})))
    stub.on("GET", "/books/_mapping", OURS)
    stub.on("PUT", "/books/_mapping", {"acknowledged": True})
    stub.on("POST", "/books/_pit", {"id": "p1"})
    hit = {"_id": "a", "_source": decode_json(source), "sort": [1]}
    stub.on("POST", "/_search", {"pit_id": "p1", "hits": {"hits": [hit]}})
    stub.on("DELETE", "/_pit", {"succeeded": True})
    failed = {"type": "cluster_block_exception", "reason": "disk usage exceeded flood-stage watermark"}
    stub.on("POST", "/books/_bulk", {"items": [{"index": {"_id": "a", "status": 403, "error": failed}}]})

    with pytest.raises(StoreError, match="flood-stage"):
        books.alter(replace(SCHEMA, filterable={**SCHEMA.filterable, "tag": FilterKind.KEYWORD}))

    assert len(stub.asked("PUT", "/books/_mapping")) == 1
    assert books.schema == SCHEMA
