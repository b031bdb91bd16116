"""Altering by a copy that takes the place of a collection, with a stub of each Lucene server."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from st_connectors._lucene.encoding import decode_json, encode_json
from st_connectors._lucene.forms import Form, layout_of, options_of, own_mapping, stored_schema
from st_connectors._lucene.names import copy_alias, next_index
from st_connectors._lucene.replacing import swap_actions
from st_connectors.altering import alter_by_copy, needs_copy
from st_connectors.cli import run
from st_connectors.elasticsearch import PLUGIN as ELASTICSEARCH
from st_connectors.elasticsearch import wire as elasticsearch
from st_connectors.errors import Permanent, Refused, SchemaMismatch, StoreError, Unavailable, Unsupported
from st_connectors.ingest import IngestFailed
from st_connectors.layers.retry import NO_RETRY
from st_connectors.memory import PLUGIN as MEMORY
from st_connectors.opensearch import PLUGIN as OPENSEARCH
from st_connectors.opensearch import wire as opensearch
from st_connectors.registry import collections, open_store
from st_connectors.schema import DenseField, FilterKind, Quantization, Rrf, Schema, SparseField, TextField
from st_connectors.store import Record
from st_core.protocols import ModelKind, ModelRef

SCHEMA = Schema("books", {"dense": DenseField(2), "text": TextField()}, {"year": FilterKind.INT})
SMALLER = replace(SCHEMA, fields={**SCHEMA.fields, "dense": DenseField(2, quantization=Quantization.INT8)})
UP = np.array([0.0, 1.0], np.float32)
RECORDS = [Record("a", {"dense": UP}, {"year": 1, "text": "x"}), Record("b", {}, {"meta": {"z": 1, "a": 2}})]
KINDS = {"elasticsearch": ("hnsw", "int8_hnsw"), "opensearch": ("lucene", "lucene_int8")}
POINTS = {
    "elasticsearch": ("/books/_pit", "/_pit", "id"),
    "opensearch": ("/books/_search/point_in_time", "/_search/point_in_time", "pit_id"),
}
FULL = (429, {"error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}})


@pytest.fixture(params=["elasticsearch", "opensearch"])
def cluster(request, lucene_stub):
    """Start a stub with the collection ``books`` of two records, which also has the alias ``live``."""
    pytest.importorskip("elasticsearch" if request.param == "elasticsearch" else "opensearchpy")
    stub, name = lucene_stub(request.param), request.param
    before = Form(dense={"dense": KINDS[name][0]})
    version = {"number": "9.5.3"} if name == "elasticsearch" else {"number": "2.19.1", "distribution": "opensearch"}
    ours = {"books@1": {"mappings": own_mapping(SCHEMA, before, {})}}
    copied = {"books@2": {"mappings": own_mapping(SMALLER, Form(dense={"dense": KINDS[name][1]}), {})}}
    settings = {"number_of_shards": "3", "number_of_replicas": "0", "uuid": "x"}
    stub.on("GET", "/", {"version": version})
    stub.on("GET", "/books/_mapping", ours)
    stub.on("GET", "/books@1/_settings", {"books@1": {"settings": {"index": settings}}})
    stub.on("GET", "/books@1/_alias", {"books@1": {"aliases": {"books": {"is_write_index": True}, "live": {}}}})
    stub.on("PUT", "/books@1/_settings", {"acknowledged": True})
    missing = {"error": {"type": "index_not_found_exception", "reason": "no such index [books@copy]"}, "status": 404}
    stub.on("GET", "/books@copy/_mapping", (404, missing), copied)
    stub.on("GET", "/books@copy/_alias", (404, missing), {"books@2": {"aliases": {"books@copy": {}}}})
    stub.on("PUT", "/books@2", {"acknowledged": True})
    stub.on("DELETE", "/books@2", {"acknowledged": True})
    documents = [decode_json(encode_json(layout_of(SCHEMA, before, None).to_source(each))) for each in RECORDS]
    hits = [{"_id": each.id, "_source": one, "sort": [1]} for each, one in zip(RECORDS, documents, strict=True)]
    opening, closing, key = POINTS[name]
    stub.on("POST", opening, {key: "p1"})
    stub.on("POST", "/_search", {"pit_id": "p1", "hits": {"hits": hits}})
    stub.on("DELETE", closing, {"succeeded": True})
    stub.on("POST", "/books@copy/_bulk", {"items": [{"index": {"_id": each.id, "status": 201}} for each in RECORDS]})
    stub.on("POST", "/books@copy/_refresh", {"_shards": {"failed": 0}})
    for alias in ("books", "books@copy"):
        stub.on("POST", f"/{alias}/_count", {"count": 2, "_shards": {"failed": 0}})
    stub.on("POST", "/_aliases", {"acknowledged": True})
    return stub


def changes(stub) -> list[tuple[str, str]]:
    """Return the requests that change something, in order."""
    reads = {"_search", "_count", "_pit", "point_in_time", "_refresh"}
    return [each for each in stub.requested() if each[0] != "GET" and each[1].rpartition("/")[2] not in reads]


def blocks(stub) -> list[object]:
    """Return the values to which the write block of the old index was set."""
    return [body["index.blocks.write"] for _, [body] in stub.asked("PUT", "/books@1/_settings")]


def test_the_copy_takes_the_place_in_one_request(cluster):
    """Writes are refused, the copy is filled behind its own alias, and one request moves every alias."""
    report = alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)

    assert (report.confirmed, report.refused_total) == (2, 0)
    assert changes(cluster) == [
        ("PUT", "/books@1/_settings"),
        ("PUT", "/books@2"),
        ("POST", "/books@copy/_bulk"),
        ("POST", "/_aliases"),
    ]
    assert blocks(cluster) == [True]
    [(_, [swap])] = cluster.asked("POST", "/_aliases")
    assert swap["actions"] == [
        {"remove": {"index": "books@2", "alias": "books@copy"}},
        {"add": {"index": "books@2", "alias": "books", "is_write_index": True}},
        {"add": {"index": "books@2", "alias": "live"}},
        {"remove_index": {"index": "books@1"}},
    ]


def test_the_copy_has_the_records_the_change_and_the_settings(cluster):
    """Documents are those of the new form; shards and replicas are those of the old index."""
    alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)

    [(_, [body])] = cluster.asked("PUT", "/books@2")
    assert body["aliases"] == {"books@copy": {"is_write_index": True}}
    settings = body["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("3", "0")
    stored = stored_schema(body["mappings"])
    assert stored is not None
    kind = KINDS[cluster.address.partition(":")[0]][1]
    assert (stored[0], stored[1].dense["dense"]) == (SMALLER, kind)
    [(options, lines)] = cluster.asked("POST", "/books@copy/_bulk")
    assert options["require_alias"] == ["true"]
    layout = layout_of(*stored, None)
    assert lines[1::2] == [decode_json(encode_json(layout.to_source(each))) for each in RECORDS]


def test_options_of_the_address_apply_to_the_copy(cluster):
    """The payload becomes fields, on other shards; what the address does not name stays."""
    cluster.on("GET", "/books@copy/_mapping", cluster.answers["GET", "/books@copy/_mapping"][0][::2], _fields(cluster))

    alter_by_copy(f"{cluster.address}?payload=fields&shards=5", SCHEMA, retry=NO_RETRY)

    [(_, [body])] = cluster.asked("PUT", "/books@2")
    assert (body["settings"]["index"]["number_of_shards"], body["settings"]["index"]["number_of_replicas"]) == (5, "0")
    [(_, lines)] = cluster.asked("POST", "/books@copy/_bulk")
    assert [{key: value for key, value in line.items() if key != "st_connectors"} for line in lines[1::2]] == [
        dict(each.payload) for each in RECORDS
    ]


def _fields(cluster):
    """Return the mapping of the copy with the payload as fields, as the server returns it."""
    name = cluster.address.partition(":")[0]
    form = Form(dense={"dense": KINDS[name][0]}, payload="fields")
    return {"books@2": {"mappings": own_mapping(SCHEMA, form, {})}}


FAILURES = {
    "create": (("PUT", "/books@2"), FULL),
    "scan": (("POST", "/_search"), FULL),
    "write": (("POST", "/books@copy/_bulk"), FULL),
    "refresh": (("POST", "/books@copy/_refresh"), FULL),
    "count": (("POST", "/books@copy/_count"), FULL),
    "swap": (("POST", "/_aliases"), FULL),
}


@pytest.mark.parametrize("step", list(FAILURES))
def test_a_failure_at_any_step_leaves_the_collection_as_it_was(cluster, step):
    """The copy is deleted, writes are accepted again, and the old index stays."""
    place, answer = FAILURES[step]
    cluster.on(*place, answer)

    with pytest.raises((StoreError, IngestFailed), match="queue is full"):
        alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)

    assert changes(cluster)[-2:] == [("DELETE", "/books@2"), ("PUT", "/books@1/_settings")]
    assert blocks(cluster) == [True, None]
    assert ("DELETE", "/books@1") not in cluster.requested()


def test_a_lost_answer_to_the_last_request_deletes_nothing(cluster):
    """The server may move the aliases later, and the copy would then be the collection."""
    down = {"error": {"type": "process_cluster_event_timeout_exception", "reason": "failed to process"}}
    cluster.on("POST", "/_aliases", (503, down))

    with pytest.raises(
        Unavailable, match=r"whether the copy has taken its place is unknown.*make the same alter again"
    ):
        alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)

    assert changes(cluster)[-1] == ("POST", "/_aliases")
    assert blocks(cluster) == [True]


def test_an_index_with_another_alias_is_no_half_copy(cluster):
    """Only an index that nothing else uses is deleted."""
    cluster.on("GET", "/books@copy/_alias", {"books@2": {"aliases": {"books@copy": {}, "books": {}}}})
    alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)
    assert ("DELETE", "/books@2") not in cluster.requested()


def test_ctrl_c_leaves_the_collection_as_it_was(cluster):
    """The copy is deleted at once, not at the next call."""

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY, progress=interrupt)

    assert caught.type.__name__ == "IngestInterrupted"
    assert changes(cluster)[-2:] == [("DELETE", "/books@2"), ("PUT", "/books@1/_settings")]
    assert ("POST", "/_aliases") not in cluster.requested()


def test_what_a_killed_process_left_is_deleted_first(cluster):
    """The second call starts over, on a collection that still refuses writes."""
    left = {"books@2": {"aliases": {"books@copy": {}}}}
    cluster.on("GET", "/books@copy/_alias", left)

    alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)

    assert changes(cluster)[:3] == [("DELETE", "/books@2"), ("PUT", "/books@1/_settings"), ("PUT", "/books@2")]
    assert changes(cluster)[-1] == ("POST", "/_aliases")


def test_a_record_that_the_copy_refuses_keeps_the_old_index(cluster):
    """The record is named; a copy without it never takes the place."""
    error = {"type": "mapper_parsing_exception", "reason": "failed to parse field [meta]"}
    items = [{"index": {"_id": "a", "status": 201}}, {"index": {"_id": "b", "status": 400, "error": error}}]
    cluster.on("POST", "/books@copy/_bulk", {"items": items})

    with pytest.raises(Refused, match=r"given up, and nothing changed: record 'b' cannot be copied: .*\[meta\]"):
        alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)

    assert blocks(cluster) == [True, None]
    assert ("POST", "/_aliases") not in cluster.requested()


def test_a_copy_with_another_number_of_records_keeps_the_old_index(cluster):
    """Both are counted before the copy takes the place."""
    cluster.on("POST", "/books@copy/_count", {"count": 1, "_shards": {"failed": 0}})

    with pytest.raises(Refused, match="it has 1 records, not 2"):
        alter_by_copy(cluster.address, SMALLER, retry=NO_RETRY)

    assert ("POST", "/_aliases") not in cluster.requested()


def test_an_alias_of_the_collection_is_not_altered(cluster):
    """The new index would belong to the alias."""
    cluster.on("GET", "/live/_mapping", json.loads(json.dumps(cluster.answers["GET", "/books/_mapping"][0][2])))

    with pytest.raises(Unsupported, match="cannot change the schema of 'live'"):
        alter_by_copy(cluster.address, replace(SMALLER, collection="live"), retry=NO_RETRY)

    assert changes(cluster) == []


def test_other_vectors_need_another_collection(cluster):
    """A copy has the stored vectors, so that a field of another dimension is refused before any request to change."""
    wider = replace(SCHEMA, fields={**SCHEMA.fields, "dense": DenseField(3)})
    with pytest.raises(Unsupported, match="a copy with the stored vectors cannot change the schema of 'books'"):
        alter_by_copy(cluster.address, wider, retry=NO_RETRY)
    assert changes(cluster) == []


def test_a_write_during_the_copy_is_refused_with_the_reason(cluster):
    """It is not lost: its writer is told."""
    reason = "index [books@1] blocked by: [FORBIDDEN/8/index write (api)];"
    error = {"type": "cluster_block_exception", "reason": reason}
    cluster.on("POST", "/books/_bulk", {"items": [{"index": {"_id": "c", "status": 403, "error": error}}]})
    store = open_store(cluster.address, "books", retry=NO_RETRY)

    [rejected] = store.upsert([Record("c", {"dense": UP})])

    assert type(rejected.error) is Permanent
    assert "an alter by copy is running, or was interrupted" in rejected.error.message
    assert "ST_" not in rejected.error.message
    store.close()


def test_a_half_copy_is_not_listed_as_another_collection(cluster):
    """Both indices store the name of the collection."""
    [answer] = cluster.answers["GET", "/books/_mapping"]
    cluster.on("GET", "/_mapping", answer[2] | {"books@2": answer[2]["books@1"]})
    assert collections(cluster.address) == ["books"]


def test_alter_says_that_a_copy_can_take_the_place(cluster):
    """The message for what cannot change in place names the command, and no drop."""
    store = open_store(cluster.address, "books", retry=NO_RETRY)
    with pytest.raises(Unsupported, match=r"let a copy take its place: st-connectors alter --quantization"):
        store.alter(SMALLER)
    store.close()


def test_stores_without_copies_say_so():
    """``copy`` makes one under another name."""
    store = open_store("memory:altering", "books", SCHEMA)
    store.create()
    with pytest.raises(Unsupported, match="cannot change the filterable of 'books'; create another collection"):
        alter_by_copy("memory:altering", replace(SCHEMA, filterable={**SCHEMA.filterable, "tag": FilterKind.KEYWORD}))
    with pytest.raises(Unsupported, match=r"cannot put a copy in the place .*st-connectors copy --into NAME"):
        alter_by_copy("memory:altering", SCHEMA)
    store.drop()
    store.close()


def alter(capsys, *arguments: str) -> tuple[int, str, str]:
    """Run ``alter`` on the collection and return the status and what was printed."""
    status = run(["alter", "--collection", "books", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_command_shows_the_copy_and_asks(cluster, capsys, monkeypatch):
    """Without a terminal and --yes nothing changes; with an answer other than yes neither."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    what = "copy 2 records of 'books' into a new index that takes its place (change of quantization)"

    status, out, error = alter(capsys, "--in", cluster.address, "--quantization", "int8")

    assert (status, out) == (2, "")
    assert f"cannot ask whether to {what}" in error
    assert "add --yes" in error
    assert changes(cluster) == []


def test_the_command_alters_by_copy(cluster, capsys):
    """What changed is said; nothing advises to drop the collection."""
    status, out, error = alter(capsys, "--in", cluster.address, "--quantization", "int8", "--yes", "--json")

    assert (status, error) == (0, "")
    answer = json.loads(out)
    assert (answer["changed"], answer["copied"]) == (["quantization"], 2)
    assert answer["schema"]["fields"]["dense"]["quantization"] == "int8"
    assert changes(cluster)[-1] == ("POST", "/_aliases")


def test_the_command_applies_options_of_the_address_by_copy(cluster, capsys):
    """``--by-copy`` needs no other option."""
    cluster.on("GET", "/books@copy/_mapping", cluster.answers["GET", "/books@copy/_mapping"][0][::2], _fields(cluster))

    outcome = alter(capsys, "--in", f"{cluster.address}?payload=fields", "--by-copy", "--yes")

    assert outcome == (0, "changed 'books' by a copy of 2 records\n", "")
    [(_, [body])] = cluster.asked("PUT", "/books@2")
    assert body["mappings"]["dynamic"] is True


def test_a_reranker_changes_by_copy_too(cluster):
    """It is recorded with the copy; no vector depends on it."""
    first, second = (
        ModelRef(name, ModelKind.RERANKER, 1, fingerprint={"weights": name}) for name in ("some/reranker", "another")
    )
    before, after = replace(SCHEMA, models={"reranker": first}), replace(SMALLER, models={"reranker": second})
    small, large = (Form(dense={"dense": kind}) for kind in KINDS[cluster.address.partition(":")[0]][::-1])
    missing = cluster.answers["GET", "/books@copy/_mapping"][0][::2]
    cluster.on("GET", "/books/_mapping", {"books@1": {"mappings": own_mapping(before, large, {})}})
    cluster.on("GET", "/books@copy/_mapping", missing, {"books@2": {"mappings": own_mapping(after, small, {})}})

    assert alter_by_copy(cluster.address, after, retry=NO_RETRY).confirmed == 2


@pytest.mark.parametrize(
    ("requested", "plugin", "expected"),
    [
        (SMALLER, ELASTICSEARCH, True),
        (SMALLER, OPENSEARCH, True),
        (SMALLER, MEMORY, False),
        (replace(SCHEMA, fusion=Rrf(7)), ELASTICSEARCH, False),
        (replace(SMALLER, fusion=Rrf(7)), ELASTICSEARCH, True),
        (replace(SCHEMA, fields={}), ELASTICSEARCH, False),
    ],
)
def test_a_copy_is_needed_for_what_cannot_change_in_place(requested, plugin, expected):
    """What changes in place needs none, and what needs other vectors cannot be copied."""
    assert needs_copy(SCHEMA, requested, plugin.capabilities) is expected


@pytest.mark.parametrize(
    ("wire", "option", "options"),
    [
        (elasticsearch, "dense_index", {"dense_index": "flat", "analyzer": "english", "payload": "fields"}),
        (elasticsearch, "dense_index", {"dense_index": "bbq_hnsw", "sparse": "rank_features"}),
        (opensearch, "engine", {"engine": "faiss_fp16", "analyzer": "german"}),
        (opensearch, "engine", {}),
    ],
)
@pytest.mark.parametrize("quantization", list(Quantization))
def test_the_options_of_a_form_lead_to_it(wire, option, options, quantization):
    """A copy has the form of the collection, also with another quantization."""
    schema = Schema("c", {"d": DenseField(64), "s": SparseField(), "t": TextField()})
    smaller = replace(schema, fields={**schema.fields, "d": DenseField(64, quantization=quantization)})
    if quantization is not Quantization.NONE and options.get("engine", "").startswith("faiss"):
        pytest.skip("faiss has no such quantization")
    stored = wire.form_for(smaller, **options)

    assert wire.form_for(smaller, **options_of(smaller, stored, option)) == stored
    full = wire.form_for(schema, **options_of(smaller, stored, option))
    if quantization is Quantization.NONE:
        assert full == stored
    else:
        assert full.dense["d"] in {"hnsw", "flat", "lucene"}


def test_seismic_needs_its_parameters_again(lucene_stub):
    """They are not stored with the collection."""
    pytest.importorskip("opensearchpy")
    stub = lucene_stub("opensearch")
    schema = Schema("books", {"s": SparseField()})
    form = opensearch.form_for(schema, sparse="seismic")
    stub.on("GET", "/", {"version": {"number": "3.3.0", "distribution": "opensearch"}})
    stub.on("GET", "/books/_mapping", {"books@1": {"mappings": own_mapping(schema, form, {})}})

    with pytest.raises(SchemaMismatch, match="name sparse=seismic and its parameters in the address"):
        alter_by_copy(stub.address, schema, retry=NO_RETRY)


def test_names_of_copies():
    """They count up, and are names that no collection can have."""
    assert (next_index("books@1"), next_index("books@12")) == ("books@2", "books@13")
    assert copy_alias("books") == "books@copy"
    assert swap_actions("books@1", "books@2", "books@copy", {})[-1] == {"remove_index": {"index": "books@1"}}
