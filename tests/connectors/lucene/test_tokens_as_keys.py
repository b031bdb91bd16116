"""Both stores with ``?vocabulary=`` and a stub server: keys of sparse fields, vocabularies that open a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from reading_smile import read_bulk

from st_connectors import open_store
from st_connectors._lucene.forms import own_mapping, with_tokens
from st_connectors._lucene.vocabulary import read_vocabulary
from st_connectors.errors import Refused, SchemaMismatch
from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import adopt_store
from st_connectors.schema import Schema, SparseField
from st_connectors.store import Near, Record, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema("wordy", {"sparse": SparseField()})
KNOWN, UNKNOWN_INDEX = SparseVector.from_mapping({1: 0.5}), SparseVector.from_mapping({1: 0.5, 9: 2.0})


@dataclass(frozen=True, slots=True)
class Engine:
    """A stub with a collection of three tokens: address, type of sparse fields, and the second token as a key."""

    stub: Any
    address: str
    kind: str
    token: str


@pytest.fixture(params=["elasticsearch", "opensearch"])
def engine(request, lucene_stub, tmp_path):
    """Start one engine after the other."""
    if request.param == "elasticsearch":
        pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")
        from st_connectors.elasticsearch import wire

        kind, token = "sparse_vector", "te.a"
    else:
        pytest.importorskip("opensearchpy", reason="needs the opensearch extra")
        from st_connectors.opensearch import wire

        kind, token = "rank_features", "te%2Ea"
    stub = lucene_stub(request.param)
    (tmp_path / "vocab.txt").write_text("a\nte.a\nb\n")
    form = with_tokens(wire.form_for(SCHEMA), read_vocabulary(str(tmp_path)))
    stub.on("GET", "/wordy/_mapping", {"wordy@1": {"mappings": own_mapping(SCHEMA, form, {"sparse": {"type": kind}})}})
    return Engine(stub, f"{stub.address}?vocabulary={tmp_path}", kind, token)


def test_only_the_vocabulary_of_a_collection_opens_it(engine, tmp_path):
    """By name and for a schema; the right one opens the existing collection."""
    (tmp_path / "other.txt").write_text("b\na\n")
    for address, message in (
        (engine.stub.address, "name it in the address"),
        (f"{engine.stub.address}?vocabulary={tmp_path}/other.txt", "names another"),
    ):
        with pytest.raises(SchemaMismatch, match=message):
            open_store(address, "wordy")
        with pytest.raises(SchemaMismatch, match=message):
            open_store(address, "wordy", SCHEMA).create()
    assert open_store(engine.address, "wordy").schema == SCHEMA
    open_store(engine.address, "wordy", SCHEMA).create()
    assert not [path for method, path, *_ in engine.stub.seen if method == "PUT"]


def test_an_index_without_a_token_is_refused(engine):
    """A record is rejected without the others, and a query is not sent."""
    store = open_store(engine.address, "wordy", SCHEMA, retry=NO_RETRY)
    message = "field 'sparse' has index 9, which the vocabulary in the address, of 3 tokens, lacks"
    with pytest.raises(Refused, match=message):
        store.search([SearchRequest(Near("sparse", KNOWN)), SearchRequest(Near("sparse", UNKNOWN_INDEX))])
    (alone,) = store.upsert([Record("a", {"sparse": UNKNOWN_INDEX})])
    assert message in str(alone.error)
    assert engine.stub.seen == []

    for method in ("PUT", "POST"):
        engine.stub.on(method, "/wordy/_bulk", {"errors": False, "items": [{"index": {"status": 201}}]})
    (rejected,) = store.upsert([Record("a", {"sparse": UNKNOWN_INDEX}), Record("b", {"sparse": KNOWN})])
    assert (rejected.position, rejected.id, type(rejected.error)) == (0, "a", Refused)
    lines = read_bulk(engine.stub.seen[-1][3])
    assert [line.get("vector") for line in lines] == [None, {"sparse": {engine.token: 0.5}}]


def test_an_adopted_index_is_read_by_a_vocabulary(engine):
    """Tokens of documents are read as indices; vectors with unknown tokens are left out."""
    properties = {"splade": {"type": engine.kind}}
    engine.stub.on("GET", "/theirs/_mapping", {"theirs": {"mappings": {"properties": properties}}})
    store = adopt_store(engine.address, "theirs")
    docs = [
        {"_id": "1", "found": True, "_source": {"splade": {engine.token: 0.5}}},
        {"_id": "2", "found": True, "_source": {"splade": {"tea": 0.5}}},
    ]
    engine.stub.on("POST", "/theirs/_mget", {"docs": docs})
    assert [dict(record.vectors) for record in store.get(["1", "2"])] == [{"splade": KNOWN}, {}]
