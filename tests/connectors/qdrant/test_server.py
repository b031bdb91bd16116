"""Servers over REST, simulated on the loopback interface: requests, their number, and the conversion of responses."""

from __future__ import annotations

import copy
import json
import socket
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="needs the qdrant extra")

from qdrant_client import QdrantClient

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
from st_connectors.layers.retry import NO_RETRY
from st_connectors.plugin import Address
from st_connectors.qdrant import PLUGIN, client, wire
from st_connectors.qdrant.layout import OwnLayout
from st_connectors.registry import bulk_loading
from st_connectors.schema import DenseField, FilterKind, Quantization, Rrf, Schema, SparseField
from st_connectors.store import Exact, Near, Record, SearchRequest
from st_connectors.testing.serving import Serving
from st_core.vectors import SparseVector

SCHEMA = Schema("books", {"dense": DenseField(2), "sparse": SparseField()}, {"year": FilterKind.INT})
OWN = OwnLayout(SCHEMA)
UP = np.array([0.0, 1.0], np.float32)
RECORD = Record("a", {"dense": UP, "sparse": SparseVector.from_mapping({3: 0.5})}, {"year": 2001})
UUID = OWN.point_id("a")


class Stub:
    """Returns responses by method and path, in order and then the last one, and records the requests."""

    def __init__(self):
        self.seen = []
        self.options = {}
        self.answers = {}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                path, _, options = self.path.partition("?")
                stub.options[self.command, path] = options
                stub.seen.append((self.command, path, body, dict(self.headers)))
                answers = stub.answers.get((self.command, path), [(404, {}, error("Not found: no such collection"))])
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                status, headers, content = answer
                sent = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(sent))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815  # http.server's names

            def log_message(self, *args):
                pass

        self.server = Serving(Handler)
        self.server.start()
        self.address = f"qdrant://{self.server.host}:{self.server.port}"

    def on(self, method, path, *results):
        """Add a successful response."""
        self.answers[method, path] = [(200, {}, {"result": result, "status": "ok", "time": 0.0}) for result in results]

    def fail(self, method, path, status, content, **headers):
        """Add a response with a status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[method, path] = [(status, named, content)]

    def bodies(self, method, path):
        return [body for m, p, body, _ in self.seen if (m, p) == (method, path)]

    def close(self):
        self.server.close()


def error(message):
    return {"status": {"error": message}, "time": 0.0}


def info(metadata):
    """Return a server's description of a collection, with the fields that the client requires."""
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "config": {
            "params": {"vectors": {"dense": {"size": 2, "distance": "Cosine"}}, "sparse_vectors": {"sparse": {}}},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            "metadata": metadata,
        },
        "payload_schema": {"n": {"data_type": "integer", "points": 3}},
    }


BOOKS = "/collections/books"
POINTS = f"{BOOKS}/points"
OURS = info({"st_connectors": SCHEMA.to_json()})
DONE = {"operation_id": 1, "status": "completed"}


@pytest.fixture
def stub(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "ST_QDRANT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with closing(Stub()) as stub:
        yield stub


@pytest.fixture
def store(stub):
    with closing(open_store(stub.address, "books", SCHEMA, retry=NO_RETRY)) as store:
        yield store


def version(stub, number):
    stub.answers["GET", "/"] = [(200, {}, {"title": "qdrant", "version": number})]


def test_create_sends_the_collection_its_schema_and_its_indexes(stub, store):
    """The body is that of ``wire``, and each payload index follows."""
    version(stub, "1.19.2")
    missing = (404, {}, error("Not found"))
    stub.answers["GET", BOOKS] = [missing, (200, {}, {"result": OURS, "status": "ok", "time": 0.0})]
    stub.on("PUT", BOOKS, True)
    stub.on("PUT", f"{BOOKS}/index", DONE)

    store.create()

    assert stub.bodies("PUT", BOOKS) == [wire.to_collection_body(SCHEMA)]
    assert stub.bodies("PUT", f"{BOOKS}/index") == [
        {"field_name": "_st_present", "field_schema": "keyword"},
        {"field_name": "_st_f_year", "field_schema": "integer"},
    ]


def test_a_server_that_keeps_no_metadata_is_told_apart_before_anything_is_made(stub, store):
    """It could not store the schema."""
    version(stub, "1.15.3")

    with pytest.raises(Unsupported, match=r"Qdrant 1\.15\.3, and 1\.16"):
        store.create()
    assert stub.bodies("PUT", BOOKS) == []


def test_create_finds_a_collection_that_is_there(stub, store):
    """Nothing else is requested."""
    stub.on("GET", BOOKS, OURS)

    store.create()

    assert {(method, path) for method, path, _, _ in stub.seen} == {("GET", BOOKS)}


def test_a_collection_of_another_schema_or_owner_is_a_mismatch(stub, store):
    """The first names the field, the second an alternative."""
    other = Schema("books", {"dense": DenseField(3)})
    stub.on("GET", BOOKS, info({"st_connectors": other.to_json()}))
    with pytest.raises(SchemaMismatch, match="dimension 3"):
        store.create()

    stub.on("GET", BOOKS, info({}))
    for call in (store.create, store.drop, lambda: open_store(stub.address, "books")):
        with pytest.raises(SchemaMismatch, match=r"Index\.adopt"):
            call()
    assert stub.bodies("DELETE", BOOKS) == []


def test_drop_removes_the_collection_and_says_nothing_where_there_is_none(stub, store):
    """Aliases and metadata are read first; a missing collection is not removed again."""
    stub.on("GET", "/aliases", {"aliases": []})
    stub.on("GET", BOOKS, OURS)
    stub.on("DELETE", BOOKS, True)
    store.drop()
    assert [seen[:2] for seen in stub.seen] == [("GET", "/aliases"), ("GET", BOOKS), ("DELETE", BOOKS)]
    assert stub.options["DELETE", BOOKS] == ""

    del stub.answers["GET", BOOKS]
    store.drop()
    assert [seen[:2] for seen in stub.seen[3:]] == [("GET", "/aliases"), ("GET", BOOKS)]


def test_a_collection_is_opened_by_its_name_alone(stub):
    """Its schema comes from its metadata."""
    stub.on("GET", BOOKS, OURS)

    with closing(open_store(stub.address, "books")) as store:
        assert store.schema == SCHEMA


def test_writes_wait_until_they_are_applied(stub, store):
    """Points are those of ``wire``; deletes use the derived ids."""
    stub.on("PUT", POINTS, DONE)
    stub.on("POST", f"{POINTS}/delete", DONE)

    assert store.upsert([RECORD]) == []
    store.delete(["a"])

    assert stub.bodies("PUT", POINTS) == [{"points": [wire.to_point(SCHEMA, OWN, RECORD)]}]
    assert stub.bodies("POST", f"{POINTS}/delete") == [{"points": [UUID]}]
    assert stub.options["PUT", POINTS] == "wait=true"
    assert stub.options["POST", f"{POINTS}/delete"] == "wait=true"


def test_searches_go_in_one_batch(stub, store):
    """One request for all that can match, and results in the order of the requests."""
    found = {"id": UUID, "version": 1, "score": 0.25, "payload": wire.to_point(SCHEMA, OWN, RECORD)["payload"]}
    stub.on("POST", f"{POINTS}/query/batch", [{"points": [found]}, {"points": []}])
    requests = [
        SearchRequest(Near("dense", UP), where=Eq("year", 2001), effort=Exact(), limit=3),
        SearchRequest(Near("sparse", SparseVector.from_mapping({}))),
        SearchRequest(Near("sparse", SparseVector.from_mapping({4: 1.0}))),
    ]

    hits = store.search(requests)

    golden = [wire.to_query_body(SCHEMA, OWN, requests[at]) for at in (0, 2)]
    # The client spells out what a bare vector means.
    golden = [body | {"query": {"nearest": body["query"]}} for body in golden]
    assert stub.bodies("POST", f"{POINTS}/query/batch") == [{"searches": golden}]
    assert [[(hit.id, hit.score, hit.payload) for hit in each] for each in hits] == [
        [("a", 0.25, {"year": 2001})],
        [],
        [],
    ]


def test_scan_goes_on_from_page_to_page(stub, store):
    """Each page starts at the id that the previous one returned."""
    points = [{"id": OWN.point_id(name), "payload": OWN.to_payload(name, {}), "vector": {}} for name in ("a", "b", "c")]
    following = points[2]["id"]
    stub.on(
        "POST",
        f"{POINTS}/scroll",
        {"points": points[:2], "next_page_offset": following},
        {"points": points[2:], "next_page_offset": None},
    )

    names = [record.id for record in store.scan(batch=2)]

    assert names == ["a", "b", "c"]
    assert [body.get("offset") for body in stub.bodies("POST", f"{POINTS}/scroll")] == [None, following]


def test_get_and_count(stub, store):
    """Records are returned in the requested order; counts are exact."""
    points = [{"id": OWN.point_id(n), "payload": OWN.to_payload(n, {"n": n}), "vector": {}} for n in ("b", "a")]
    stub.on("POST", POINTS, points)
    stub.on("POST", f"{POINTS}/count", {"count": 7})

    assert [record.payload for record in store.get(["a", "zz", "b"])] == [{"n": "a"}, {"n": "b"}]
    assert store.count(Eq("year", 2001)) == 7
    assert stub.bodies("POST", f"{POINTS}/count") == [
        {"filter": {"must": [{"key": "_st_f_year", "match": {"value": 2001}}]}, "exact": True}
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, Permanent),
        (403, Permanent),
        (404, NotFound),
        (408, Unavailable),
        (409, Refused),
        (413, Refused),
        (422, Refused),
        (429, Throttled),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
def test_each_status_is_an_error_of_the_right_class_and_asked_once(stub, store, status, kind):
    """With the server's text, the store and the operation; the client library does not retry."""
    stub.fail("POST", f"{POINTS}/count", status, error("because of reasons"))

    with pytest.raises(StoreError, match=r"qdrant count: .*because of reasons") as caught:
        store.count()
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.__cause__ is not None
    assert len(stub.seen) == 1


def test_throttling_carries_the_servers_wish(stub, store):
    """The retry layer waits that long."""
    stub.fail("PUT", POINTS, 429, error("slow down"), Retry_After="7")

    with pytest.raises(Throttled) as caught:
        store.upsert([RECORD])
    assert caught.value.retry_after == 7.0


def test_a_refused_batch_is_taken_apart(stub, store):
    """Qdrant refuses whole batches; the layers isolate both records."""
    stub.fail("PUT", POINTS, 422, error("must be unique"))

    rejected = store.upsert([RECORD, Record("b", {}, {})])

    assert [(each.position, each.id, type(each.error)) for each in rejected] == [(0, "a", Refused), (1, "b", Refused)]
    assert len(stub.seen) == 3


def test_a_broken_connection_is_unavailable(stub, store):
    """The connection is reset during a response."""
    stub.answers["POST", f"{POINTS}/count"] = [None]

    with pytest.raises(Unavailable, match="cannot be reached"):
        store.count()
    assert len(stub.seen) == 1


@pytest.mark.parametrize("cut", [b'{"result": {"operation_id": 7, "sta', '{"result": "é'.encode()[:-1]])
def test_a_write_whose_answer_was_cut_off_is_not_refused(stub, store, cut):
    """The server may have stored the records; they can be sent again."""
    stub.answers["PUT", POINTS] = [(200, {}, cut)]

    with pytest.raises(Unavailable, match="the answer was cut off"):
        store.upsert([RECORD, Record("b", {"dense": UP})])
    assert len(stub.seen) == 1


def test_a_tls_connection_that_ends_early_may_be_tried_again():
    """It was reset, or the server without TLS closed it."""

    class HangUp(BaseRequestHandler):
        def handle(self):
            self.request.recv(65_536)

    with Serving(HangUp) as server:
        address = f"qdrant+https://{server.host}:{server.port}"
        with (
            closing(open_store(address, "books", SCHEMA, retry=NO_RETRY)) as store,
            pytest.raises(Unavailable, match="does the server speak TLS on this port"),
        ):
            store.count()


def test_an_answer_that_is_not_qdrants_is_permanent(stub, store):
    """A proxy's page, for example: repeating the request does not help."""
    stub.fail("POST", f"{POINTS}/count", 200, b"<html>welcome</html>")

    with pytest.raises(Permanent, match="right address"):
        store.count()


def test_a_refused_connection_is_unavailable():
    """No server listens on the port, which the message contains."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        with (
            closing(open_store(f"qdrant://127.0.0.1:{port}", "books", SCHEMA, retry=NO_RETRY)) as store,
            pytest.raises(Unavailable, match=f"the server at 127.0.0.1:{port} cannot be reached"),
        ):
            store.count()


def test_the_key_comes_from_the_environment_and_is_in_no_message(stub, monkeypatch, caplog):
    """It is sent with every request, and errors do not contain it; one line says that it is not encrypted."""
    monkeypatch.setenv("ST_QDRANT_API_KEY", "s3cret")
    client._warn_unencrypted.cache_clear()  # another server may have had this port
    stub.fail("POST", f"{POINTS}/count", 403, error("forbidden"))

    with (
        closing(open_store(stub.address, "books", SCHEMA, retry=NO_RETRY)) as store,
        pytest.raises(Permanent, match="ST_QDRANT_API_KEY") as caught,
    ):
        store.count()
    assert stub.seen[0][3]["api-key"] == "s3cret"
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"
    open_store(stub.address, "books", SCHEMA).close()
    open_store(stub.address.replace("qdrant:", "qdrant+https:"), "books", SCHEMA).close()
    [line] = caplog.messages
    assert line == (
        f"qdrant: the key in ST_QDRANT_API_KEY is sent to {stub.address.removeprefix('qdrant://')} without encryption; "
        "if the server speaks TLS, write qdrant+https://"
    )


def test_a_client_handed_in_is_used_and_left_open(stub):
    """It belongs to the caller."""
    stub.on("GET", "/collections", {"collections": []})
    host, port = stub.address.removeprefix("qdrant://").split(":")
    with closing(QdrantClient(host=host, port=int(port), check_compatibility=False)) as client:
        stub.on("POST", f"{POINTS}/count", {"count": 1})
        with closing(open_store("qdrant://elsewhere:1", "books", SCHEMA, client=client)) as store:
            assert store.count() == 1
        assert client.get_collections().collections == []


def test_only_our_collections_are_listed(stub):
    """Those whose metadata contains a schema."""
    stub.on("GET", "/collections", {"collections": [{"name": "books"}, {"name": "theirs"}]})
    stub.on("GET", BOOKS, OURS)
    stub.on("GET", "/collections/theirs", info(None))

    assert collections(stub.address) == ["books"]


def test_a_collection_of_somebody_else_is_adopted(stub):
    """Fields are read from the server's description; indexed keys are filterable."""
    stub.on("GET", BOOKS, info(None))
    host, port = stub.address.removeprefix("qdrant://").split(":")

    store = PLUGIN.adopt(Address("qdrant", host=host, port=int(port)), "books", {}, None)

    assert store.schema == Schema("books", {"dense": DenseField(2), "sparse": SparseField()}, {"n": FilterKind.INT})
    store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("qdrant://h:1?timeout=soon", "whole number of seconds"),
        ("qdrant://h:1?wait=1", "unknown option 'wait'"),
        ("qdrant:library", r"qdrant is a server: write qdrant://HOST:PORT, or for a folder qdrant\+edge:PATH"),
    ],
)
def test_options_that_are_not_understood_are_refused(url, message):
    """They are not ignored."""
    with pytest.raises(ValueError, match=message):
        open_store(url, "books", SCHEMA)


def test_a_client_of_another_kind_is_refused():
    """For example the asynchronous client."""
    with pytest.raises(TypeError, match="QdrantClient, got object"):
        open_store("qdrant://h:1", "books", SCHEMA, client=object())


def thresholds(stub):
    """Return the indexing thresholds that were set, in order; no other setting may be."""
    bodies = stub.bodies("PATCH", BOOKS)
    assert all(body.keys() == {"optimizers_config"} for body in bodies)
    assert all(body["optimizers_config"].keys() == {"indexing_threshold"} for body in bodies)
    return [body["optimizers_config"]["indexing_threshold"] for body in bodies]


@pytest.mark.parametrize(
    ("found", "back"), [(1234, 1234), (0, 0), (None, 10_000)], ids=["set", "switched off", "the server's own"]
)
@pytest.mark.parametrize("raised", [None, ValueError("x"), KeyboardInterrupt()], ids=repr)
def test_a_bulk_load_raises_the_threshold_and_puts_it_back(stub, found, back, raised):
    """During the block no segment gets a graph; the threshold is restored, also after an error, which is raised."""
    described = copy.deepcopy(OURS)
    described["config"]["optimizer_config"]["indexing_threshold"] = found
    stub.on("GET", BOOKS, described)
    stub.on("PATCH", BOOKS, True)

    caught = None
    try:
        with bulk_loading(stub.address, "books"):
            inside = thresholds(stub)
            if raised is not None:
                raise raised
    except (ValueError, KeyboardInterrupt) as error:
        caught = error

    assert caught is raised
    assert inside == [1_000_000_000]
    assert thresholds(stub) == [1_000_000_000, back]


def test_a_bulk_load_of_an_absent_collection_is_not_found(stub):
    """No setting changes, and the block does not run."""
    with pytest.raises(NotFound, match="no such collection"), bulk_loading(stub.address, "books"):
        pytest.fail("the block was run")

    assert thresholds(stub) == []


def test_a_threshold_that_cannot_be_put_back_is_told(stub):
    """The server's error is translated."""
    stub.on("GET", BOOKS, OURS)
    stub.on("PATCH", BOOKS, True)

    with pytest.raises(Unavailable), bulk_loading(stub.address, "books"):
        stub.fail("PATCH", BOOKS, 503, error("overloaded"))


def test_what_a_bulk_load_sets_is_said_by_the_ways_in(stub):
    """Servers have a threshold; the embedded engine and local mode have no setting."""
    said = {}
    for address in (stub.address, stub.address.replace("qdrant:", "qdrant+grpc:"), "qdrant+memory:bulk"):
        with closing(open_store(address, "books", SCHEMA)) as store:
            said[address.partition(":")[0]] = store.capabilities.bulk_loading

    one = frozenset({"optimizers_config.indexing_threshold"})
    assert said == {"qdrant": one, "qdrant+grpc": one, "qdrant+memory": frozenset()}
    with bulk_loading("qdrant+memory:bulk", "books"):
        pass
    assert stub.seen == []


def test_alter_indexes_copies_and_then_stores_the_schema(stub, store):
    """The copies of every point are added beside its vectors, and the schema is stored last, in one request."""
    altered = replace(
        SCHEMA,
        fields={**SCHEMA.fields, "dense": DenseField(2, quantization=Quantization.INT8)},
        filterable={**SCHEMA.filterable, "meta.tag": FilterKind.KEYWORD},
        fusion=Rrf(7),
    )
    payload = {"year": 2001, "meta": {"tag": "x"}}
    points = [
        {"id": UUID, "payload": OWN.to_payload("a", payload)},
        {"id": OWN.point_id("b"), "payload": OWN.to_payload("b", {})},
    ]
    stub.on("GET", BOOKS, OURS)
    stub.on("POST", f"{BOOKS}/points/scroll", {"points": points, "next_page_offset": None})
    stub.on("PUT", f"{BOOKS}/index", DONE)
    stub.on("POST", f"{BOOKS}/points/batch", [DONE])
    stub.on("PATCH", BOOKS, True)

    store.alter(altered)

    writes = [(method, path) for method, path, _, _ in stub.seen if method != "GET" and not path.endswith("scroll")]
    assert writes == [("PUT", f"{BOOKS}/index"), ("POST", f"{BOOKS}/points/batch"), ("PATCH", BOOKS)]
    assert stub.bodies("PUT", f"{BOOKS}/index") == [{"field_name": "_st_f_meta-2e-tag", "field_schema": "keyword"}]
    [batch] = stub.bodies("POST", f"{BOOKS}/points/batch")
    copies = {"_st_f_year": 2001, "_st_f_meta-2e-tag": "x", "_st_present": ["year", "meta.tag"]}
    assert batch["operations"] == [{"set_payload": {"payload": copies, "points": [UUID]}}]
    [change] = stub.bodies("PATCH", BOOKS)
    assert change["metadata"] == {"st_connectors": altered.to_json()}
    assert change["vectors"] == {"dense": {"quantization_config": {"scalar": {"type": "int8", "always_ram": True}}}}
    assert store.schema == altered


def test_alter_turns_quantization_off(stub):
    """Qdrant has a word for it."""
    stored = replace(SCHEMA, fields={"dense": DenseField(2, quantization=Quantization.BINARY)})
    stub.on("GET", BOOKS, info({"st_connectors": stored.to_json()}))
    stub.on("PATCH", BOOKS, True)
    with closing(open_store(stub.address, "books", retry=NO_RETRY)) as store:
        store.alter(replace(stored, fields={"dense": DenseField(2)}))

    [change] = stub.bodies("PATCH", BOOKS)
    assert change["vectors"] == {"dense": {"quantization_config": "Disabled"}}
