"""The adapter with a stub server on the loopback interface: requests, their number, and results of answers."""

from __future__ import annotations

import base64
import logging
import threading
from contextlib import closing

import numpy as np
import pytest
from reading_smile import read_bulk

pytest.importorskip("opensearchpy", reason="needs the opensearch extra")

from opensearchpy import OpenSearch

from st_connectors import collections, open_store
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
from st_connectors.opensearch import CAPABILITIES, PLUGIN, wire
from st_connectors.registry import adopt_store, parse_address
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField
from st_connectors.store import Near, Record, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema("books", {"dense": DenseField(2), "sparse": SparseField()}, {"year": FilterKind.INT})
FORM = wire.form_for(SCHEMA)
UP = np.array([0.0, 1.0], np.float32)
RECORDS = [Record(name, {"dense": UP}, {"year": 2001}) for name in "abc"]
MISSING = {"error": {"type": "index_not_found_exception", "reason": "no such index [books]"}, "status": 404}
FULL = {"type": "es_rejected_execution_exception", "reason": "rejected execution of coordinating operation"}
TORN = {"type": "mapper_parsing_exception", "reason": "failed to parse", "caused_by": {"type": "x", "reason": "torn"}}
FOUND = {"_id": "a", "_score": None, "sort": [0.9, "a"], "_source": {"id": "a", "payload": '{"year":2001}'}}
NOTHING = {"status": 200, "hits": {"hits": []}}


def mappings(schema=SCHEMA, form=FORM):
    """Return the answer to ``GET /books/_mapping`` for one of our collections."""
    return {"books@1": {"mappings": wire.index_body(schema, form, {}, {})["mappings"]}}


def opened(stub, schema=SCHEMA, retry=NO_RETRY, options=""):
    """Return a store that has sent nothing."""
    return open_store(stub.address + options, schema.collection, schema, retry=retry)


def item(status, error=None):
    """Return the result of one line of a bulk request."""
    return {"index": {"status": status, **({"error": error} if error else {})}}


def test_opening_with_a_schema_sends_nothing(stub):
    """The server is queried later."""
    store = opened(stub)

    assert store.capabilities.max_query_terms == 1000
    assert stub.seen == []


def test_create_queries_the_server_and_creates_the_index(stub):
    """Once; the capabilities have what the server reports."""
    clauses = {"persistent": {"indices": {"query": {"bool": {"max_clause_count": "4096"}}}}}
    stub.on("GET", "/_cluster/settings", clauses)
    stub.answers["GET", "/books/_mapping"] = [(404, {}, MISSING), (200, {}, mappings())]
    stub.on("PUT", "/books@1", {"acknowledged": True})
    store = opened(stub, options="?shards=3&replicas=0")
    store.create()
    store.create()

    ((_, (body,)),) = stub.asked("PUT", "/books@1")
    assert body["settings"]["index"] == {"number_of_shards": 3, "number_of_replicas": 0, "knn": True}
    assert len(stub.asked("GET", "/")) == 1
    assert store.capabilities.max_query_terms == 4072


def test_create_accepts_an_index_that_another_client_created(stub):
    """With the same schema; another schema is a mismatch."""
    exists = {"error": {"type": "resource_already_exists_exception", "reason": "index [books@1/x] already exists"}}
    stub.answers["GET", "/books/_mapping"] = [(404, {}, MISSING), (200, {}, mappings())]
    stub.fail("PUT", "/books@1", 400, exists)
    opened(stub).create()

    other = Schema("books", {"dense": DenseField(3)})
    stub.on("GET", "/books/_mapping", mappings(other, wire.form_for(other)))
    with pytest.raises(SchemaMismatch, match="dense"):
        opened(stub).create()


def test_create_in_another_form_is_a_mismatch(stub):
    """Only where the address has an option for it."""
    stub.on("GET", "/books/_mapping", mappings())
    opened(stub).create()

    with pytest.raises(SchemaMismatch, match="faiss"):
        opened(stub, options="?engine=faiss").create()


def test_an_index_without_its_alias_is_a_mismatch(stub):
    """The message says what to do."""
    exists = {"error": {"type": "resource_already_exists_exception", "reason": "index [books@1/x] already exists"}}
    stub.fail("PUT", "/books@1", 400, exists)

    with pytest.raises(SchemaMismatch, match="alias"):
        opened(stub).create()


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"version": {"number": "9.5.3"}}, "elasticsearch://"),
        ({"version": {"number": "2.11.0", "distribution": "opensearch"}}, "2.19"),
    ],
)
def test_an_unsupported_server_gets_no_index(stub, info, words):
    """By its version or its product."""
    stub.on("GET", "/", info)

    with pytest.raises(Unsupported, match=words):
        opened(stub).create()
    assert stub.asked("PUT", "/books@1") == []


def test_seismic_needs_a_recent_server(stub):
    """No index is created on one older than 3.3."""
    with pytest.raises(Unsupported, match=r"3\.3"):
        opened(stub, options="?sparse=seismic&n_postings=200").create()
    assert stub.asked("PUT", "/books@1") == []


def test_unknown_names_and_adoptable_indices(stub):
    """Neither is opened as ours; the error of an existing index names ``adopt``."""
    with pytest.raises(NotFound, match="create it first"):
        open_store(stub.address, "books", retry=NO_RETRY)

    stub.on("GET", "/books/_mapping", {"books": {"mappings": {"properties": {}}}})
    with pytest.raises(SchemaMismatch, match="adopt"):
        open_store(stub.address, "books", retry=NO_RETRY)
    with pytest.raises(SchemaMismatch, match="adopt"):
        opened(stub).drop()
    assert not [method for method, *_ in stub.seen if method == "DELETE"]


def test_each_record_of_a_batch_has_its_own_error(stub):
    """An invalid record is refused, a throttled one can be retried, and the others are stored."""
    stub.on("POST", "/books/_bulk", {"errors": True, "items": [item(201), item(429, FULL), item(400, TORN)]})
    rejected = opened(stub).upsert(RECORDS)

    assert [(each.position, each.id, type(each.error), each.error.status) for each in rejected] == [
        (1, "b", Throttled, 429),
        (2, "c", Refused, 400),
    ]
    assert "torn" in str(rejected[1].error)
    ((options, lines),) = stub.asked("POST", "/books/_bulk")
    assert options["require_alias"] == ["true"]
    assert lines[0] == {"index": {"_id": "a"}}
    assert lines[1] == {
        "id": "a",
        "payload": '{"year":2001}',
        "filter": {"year": [2001]},
        "vector": {"dense": [0.0, 1.0]},
    }


def test_the_advice_of_a_layout_leaves_the_status_as_it_is(stub):
    """``payload=fields`` adds what to do to the server's message."""
    stub.on("POST", "/books/_bulk", {"errors": True, "items": [item(400, TORN)]})
    (rejected,) = opened(stub, options="?payload=fields").upsert(RECORDS[:1])

    assert rejected.error.status == 400
    assert "torn; payload=fields gives each key" in str(rejected.error)


def test_only_throttled_items_go_again(stub):
    """The retry layer repeats; the client does not."""
    first = {"errors": True, "items": [item(201), item(429, FULL), item(400, TORN)]}
    stub.on("POST", "/books/_bulk", first, {"errors": False, "items": [item(201)]})
    at_once = RetryPolicy(attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)
    rejected = opened(stub, retry=at_once).upsert(RECORDS)

    assert [each.id for each in rejected] == ["c"]
    assert [len(lines) // 2 for _, lines in stub.asked("POST", "/books/_bulk")] == [3, 1]


def test_a_bulk_to_an_absent_collection_is_not_found(stub):
    """It creates none."""
    stub.on("POST", "/books/_bulk", {"errors": True, "items": [item(404, MISSING["error"])] * 3})

    with pytest.raises(NotFound):
        opened(stub).upsert(RECORDS)


def test_deleting_absent_ids_is_silent(stub):
    """Their items have status 404 and no error."""
    gone = {"errors": False, "items": [{"delete": {"status": 404}}]}
    stub.on("POST", "/books/_bulk", gone)
    opened(stub).delete(["a"])

    assert stub.asked("POST", "/books/_bulk")[0][1] == [{"delete": {"_id": "a"}}]


def test_records_that_seismic_would_change_are_refused(stub):
    """The others are stored, and positions are those of the caller."""
    stub.on("POST", "/books/_bulk", {"errors": True, "items": [item(201), item(400, TORN)]})
    vectors = [SparseVector.from_mapping({index: 1.0}) for index in (2**15, 1, 2)]
    adapter = PLUGIN.connect(parse_address(f"{stub.address}?sparse=seismic"), "books", SCHEMA, None)
    rejected = adapter.upsert([Record(str(at), {"sparse": vector}) for at, vector in enumerate(vectors)])

    assert [(each.position, each.id) for each in rejected] == [(0, "0"), (2, "2")]
    assert "32768" in str(rejected[0].error)


def test_searches_are_one_request_and_scores_are_unfolded(stub):
    """A dense score of 0.9 is a cosine of 0.8."""
    stub.on("POST", "/books/_msearch", {"responses": [{"status": 200, "hits": {"hits": [FOUND]}}, NOTHING]})
    sparse = Near("sparse", SparseVector.from_mapping({7: 1.0}))
    one, two = opened(stub).search([SearchRequest(Near("dense", UP), where=Eq("year", 2001)), SearchRequest(sparse)])

    assert [(hit.id, hit.payload) for hit in one] == [("a", {"year": 2001})]
    assert one[0].score == pytest.approx(0.8)
    assert two == []
    assert len(stub.asked("POST", "/books/_msearch")) == 1
    assert len(stub.asked("GET", "/_nodes/plugins")) == 1


def test_without_the_plugin_tokens_are_clauses(stub):
    """Also where the user may not query it; it is queried once."""
    stub.fail("GET", "/_nodes/plugins", 403, {"error": {"type": "security_exception", "reason": "no permissions"}})
    stub.on("POST", "/books/_msearch", {"responses": [NOTHING]})
    store = opened(stub)
    for _ in range(2):
        store.search([SearchRequest(Near("sparse", SparseVector.from_mapping({7: 2.0})))])

    (_, lines), _ = stub.asked("POST", "/books/_msearch")
    clause = {"rank_feature": {"field": "vector.sparse.7", "boost": 2.0, "linear": {}}}
    assert lines[1]["query"] == {"bool": {"should": [clause]}}
    assert len(stub.asked("GET", "/_nodes/plugins")) == 1


def test_one_search_of_several_that_fails_is_an_error(stub):
    """It has the class and message of that search."""
    stub.on("POST", "/books/_msearch", {"responses": [NOTHING, {"status": 404, "error": MISSING["error"]}]})

    with pytest.raises(NotFound, match="no such index"):
        opened(stub).search([SearchRequest(Near("dense", UP))] * 2)


@pytest.mark.parametrize("call", ["count", "refresh"])
def test_an_answer_from_some_shards_only_is_unavailable(stub, call):
    """A count of some shards is no count."""
    failure = {"shard": 1, "reason": {"type": "node_not_connected_exception", "reason": "gone"}}
    half = {"count": 1, "_shards": {"total": 2, "failed": 1, "failures": [failure]}}
    stub.on("POST", f"/books/_{call}", half)

    with pytest.raises(Unavailable, match="gone"):
        getattr(opened(stub), call)()


def test_a_scan_closes_its_point_in_time(stub):
    """Also when it is stopped early."""
    stub.on("POST", "/books/_search/point_in_time", {"pit_id": "p"})
    page = [{**FOUND, "_id": name, "sort": [at, name]} for at, name in enumerate("ab")]
    stub.on("POST", "/_search", {"hits": {"hits": page}}, {"hits": {"hits": page[:1]}})
    stub.on("DELETE", "/_search/point_in_time", {"pits": []})
    store = opened(stub)

    assert [record.id for record in store.scan(batch=2)] == ["a", "b", "a"]
    first, second = (lines[0] for _, lines in stub.asked("POST", "/_search"))
    assert "search_after" not in first
    assert second["search_after"] == [1, "b"]
    assert first["pit"]["id"] == "p"
    left = store.scan(batch=2)
    next(left)
    left.close()
    assert len(stub.asked("DELETE", "/_search/point_in_time")) == 2


def test_an_expired_point_in_time_is_permanent(stub):
    """The scan paused longer than the server keeps it."""
    stub.on("POST", "/books/_search/point_in_time", {"pit_id": "p"})
    late = {"error": {"type": "search_context_missing_exception", "reason": "No search context found for id [1]"}}
    stub.fail("POST", "/_search", 404, late)

    with pytest.raises(Permanent, match="start it again"):
        list(opened(stub).scan())


def test_collections_lists_our_own(stub):
    """Other mappings have no schema."""
    stub.on("GET", "/_mapping", {**mappings(), "theirs": {"mappings": {"_meta": {"st_connectors": {"old": 1}}}}})
    assert collections(stub.address) == ["books"]

    stub.on("GET", "/_mapping", {})
    assert collections(stub.address) == []


def test_name_and_password_come_from_the_environment_and_are_never_shown(stub, monkeypatch):
    """The default name is admin."""
    monkeypatch.setenv("ST_OPENSEARCH_PASSWORD", "s3cr3t")
    stub.fail("POST", "/books/_count", 401, b"Unauthorized")
    with pytest.raises(Permanent, match="ST_OPENSEARCH_PASSWORD") as caught:
        opened(stub).count()

    sent = {name.lower(): value for name, value in stub.seen[-1][4].items()}["authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "admin:s3cr3t"
    assert "s3cr3t" not in str(caught.value) + repr(caught.value.__cause__)


def test_a_callers_client_is_used_and_stays_open(stub, monkeypatch):
    """Its own retries do not apply."""
    client = OpenSearch([{"host": "127.0.0.1", "port": stub.port}], max_retries=5, retry_on_status=(503,))
    closed = []
    monkeypatch.setattr(client, "close", lambda: closed.append(True))
    stub.fail("POST", "/books/_count", 503, {"error": "busy"}, Retry_After="4")
    with closing(open_store("opensearch://elsewhere:1", "books", SCHEMA, client=client, retry=NO_RETRY)) as store:
        with pytest.raises(Unavailable) as caught:
            store.count()
        assert caught.value.retry_after == 4.0
        assert len(stub.seen) == 1
    assert closed == []
    client.transport.close()

    with pytest.raises(TypeError, match=r"opensearchpy\.OpenSearch, not str"):
        open_store(stub.address, "books", SCHEMA, client="http://127.0.0.1")


def test_failures_log_no_warning(stub, caplog):
    """The client would log one with a traceback for each."""
    stub.fail("POST", "/books/_count", 503, {"error": "busy"})
    with caplog.at_level(logging.INFO), pytest.raises(StoreError):
        opened(stub).count()
    with caplog.at_level(logging.INFO), pytest.raises(Unavailable):
        open_store("opensearch://127.0.0.1:1", "books", SCHEMA, retry=NO_RETRY).count()

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("?colour=red", "unknown option 'colour'"),
        ("?shards=0", "shards"),
        ("?replicas=-1", "replicas"),
        ("?timeout=soon", "timeout"),
        ("?timeout=0", "timeout"),
        ("?n_postings=3", "sparse=seismic"),
        ("?sparse=seismic&n_postings=x", "n_postings"),
        ("?sparse=other", "unknown sparse"),
        ("?vocabulary=nowhere.txt", "there is no vocabulary 'nowhere.txt'"),
        ("?sparse=seismic&vocabulary=builtin:sparse", "leave vocabulary out"),
        ("?engine=nmslib", "unknown engine"),
    ],
)
def test_invalid_options_are_refused(stub, options, words):
    """Nothing is sent."""
    with pytest.raises(ValueError, match=words):
        opened(stub, options=options)
    assert stub.seen == []


@pytest.mark.parametrize("name", ["*", "Books", "_all", "a,b", "a b", "x" * 251])
def test_names_that_no_index_can_have_are_refused(stub, name):
    """A name such as ``*`` would address every index."""
    with pytest.raises(ValueError, match="cannot be an index"):
        open_store(stub.address, name)
    with pytest.raises(ValueError, match="cannot be an index"):
        adopt_store(stub.address, name)
    assert stub.seen == []


def test_a_write_does_not_create_a_deleted_adopted_index(stub):
    """It has no alias to require, so it is looked up first."""
    theirs = {"properties": {"emb": {"type": "knn_vector", "dimension": 2}, "n": {"type": "long"}}}
    stub.on("GET", "/books/_mapping", {"books": {"mappings": theirs}})
    stub.on("GET", "/books/_alias", {"books": {"aliases": {}}})
    stub.on("POST", "/books/_bulk", {"errors": False, "items": [item(201)]})
    store = adopt_store(stub.address, "books", retry=NO_RETRY)
    record = Record("a", {"emb": UP}, {"n": 1, "free": {"x": [1.0]}})
    assert store.upsert([record]) == []
    ((options, lines),) = stub.asked("POST", "/books/_bulk")
    assert "require_alias" not in options
    assert lines[1] == {"n": 1, "free": {"x": [1.0]}, "emb": [0.0, 1.0]}

    del stub.answers["GET", "/books/_alias"]
    with pytest.raises(NotFound):
        store.upsert([record])
    assert len(stub.asked("POST", "/books/_bulk")) == 1
    with pytest.raises(Unsupported, match="adopted"):
        store.drop()


def test_a_closed_store_sends_nothing(stub):
    """Every call raises an error."""
    store = opened(stub)
    store.close()
    store.close()

    with pytest.raises(Permanent, match="closed"):
        store.count()
    assert stub.seen == []


def test_threads_share_one_client(stub):
    """Each call gets its own answer."""
    stub.on("POST", "/books/_count", {"count": 5, "_shards": {"failed": 0}})
    store = opened(stub)
    counts = []
    threads = [threading.Thread(target=lambda: counts.extend(store.count() for _ in range(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts == [5] * 40


def test_texts_are_utf_8(stub):
    """Letters are not escaped, and NaN is refused."""
    stub.on("POST", "/books/_bulk", {"errors": False, "items": [item(201)]})
    opened(stub).upsert([Record("ünï/👩", {}, {"year": 1})])

    assert "ünï/👩".encode() in stub.seen[-1][3]
    adapter = PLUGIN.connect(parse_address(stub.address), "books", SCHEMA, None)
    with pytest.raises(ValueError, match="JSON"):
        adapter.upsert([Record("a", {"dense": np.array([np.nan, 1.0], np.float32)})])
    assert CAPABILITIES.partial_failure
    assert read_bulk(stub.seen[0][3])[0] == {"index": {"_id": "ünï/👩"}}


def test_an_unreachable_server():
    """The message has its address and the system's reason, once."""
    with pytest.raises(Unavailable) as raised:
        open_store("opensearch://127.0.0.1:1", "books", SCHEMA, retry=NO_RETRY).count()

    assert str(raised.value).count("127.0.0.1") == 1
    assert "the server cannot be reached: " in str(raised.value)
    assert "refused" in str(raised.value)


def test_tls_to_a_server_without_tls_is_permanent(stub):
    """A retry cannot help; the message is one sentence."""
    address = stub.address.replace("opensearch://", "opensearch+https://")
    with pytest.raises(Permanent, match="does the server speak TLS here"):
        open_store(address, "books", SCHEMA, retry=NO_RETRY).count()


@pytest.mark.parametrize("answer", [{"hello": "world"}, {"books": {}}, [1], "hello"])
def test_an_answer_of_another_product_is_an_error(stub, answer):
    """Whichever request receives it first."""
    stub.on("GET", "/books/_mapping", answer)
    stub.on("GET", "/_mapping", answer)
    with pytest.raises(Permanent, match="right address"):
        opened(stub).drop()
    with pytest.raises(Permanent, match="right address"):
        collections(stub.address)
    stub.on("GET", "/", {"title": "another engine", "version": "1.12.0"})
    with pytest.raises(Unsupported, match="right address"):
        open_store(stub.address, "books", retry=NO_RETRY)
