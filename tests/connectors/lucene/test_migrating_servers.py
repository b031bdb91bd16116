"""A migration on each Lucene server, simulated on the loopback interface with the indices in memory."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest
from reading_smile import read_bulk

from st_connectors.index import Index
from st_connectors.migrating import Migrator, drop_old
from st_connectors.registry import open_store, stored_schema
from st_connectors.schema import Migration

TEXTS = {"a": "apple", "b": "boat", "c": "plum"}
POINTS = {"_pit": "id", "_search/point_in_time": "pit_id"}


class Cluster(dict):
    """The routes of a stub, answered from indices by their alias: mappings, and documents by id."""

    def __init__(self, scripted):
        super().__init__(scripted)
        self.indices = {}

    def get(self, key, default=None):
        """Return the answer to a method and path."""
        return super().get(key) or [lambda sent: self.answer(*key, sent) or default[0]]

    def answer(self, method, path, sent):
        """Return status, headers and content; None for an index that does not exist."""
        name, _, what = path.removeprefix("/").partition("/")
        if method == "PUT" and not what:
            body = json.loads(sent)
            [alias] = body["aliases"]
            self.indices[alias] = {"index": name, "mappings": body["mappings"], "documents": {}}
            return 200, {}, {"acknowledged": True}
        if (method, path) == ("POST", "/_search"):
            return 200, {}, self.page(json.loads(sent)["pit"]["id"])
        if method == "DELETE" and path.removeprefix("/") in POINTS:
            return 200, {}, {"succeeded": True}
        found = self.indices.get(name)
        return None if found is None else (200, {}, self.of_index(found, name, method, what, sent))

    def page(self, alias):
        """Return all documents as one page."""
        documents = self.indices[alias]["documents"]
        return {"hits": {"hits": [{"_id": key, "_source": one, "sort": [key]} for key, one in documents.items()]}}

    def of_index(self, found, name, method, what, sent):
        """Return the answer to a request about one index."""
        documents = found["documents"]
        if what == "_mapping" and method == "GET":
            return {found["index"]: {"mappings": found["mappings"]}}
        if what == "_mapping":
            found["mappings"]["_meta"] = json.loads(sent)["_meta"]
            return {"acknowledged": True}
        if what in POINTS:
            return {POINTS[what]: name}
        if what == "_mget":
            ids = [each["_id"] for each in json.loads(sent)["docs"]]
            return {"docs": [{"_id": key, "found": key in documents, "_source": documents.get(key)} for key in ids]}
        if what == "_bulk":
            return {"items": list(self.bulk(documents, sent))}
        return {"count": len(documents), "_shards": {"failed": 0}}

    def bulk(self, documents, sent):
        """Apply the lines of a bulk request."""
        lines = iter(read_bulk(sent))
        for line in lines:
            [(action, options)] = line.items()
            if action == "delete":
                documents.pop(options["_id"], None)
            else:
                documents[options["_id"]] = next(lines)
            yield {action: {"_id": options["_id"], "status": 200}}


class Ones:
    """Dense: the length of the text and three ones, [n, 4]."""

    name = "ones"

    def encode_document(self, inputs, /):
        return np.array([[len(text), 1, 1, 1] for text in inputs], dtype=np.float32)

    encode_query = encode_document


@pytest.fixture(params=["elasticsearch", "opensearch"])
def cluster(request, lucene_stub):
    """Start a server without indices."""
    pytest.importorskip("elasticsearch" if request.param == "elasticsearch" else "opensearchpy")
    stub = lucene_stub(request.param)
    stub.answers = Cluster(stub.answers)
    return stub


def texts_of(store):
    return {record.id: record.payload["text"] for record in store.scan()}


def test_a_migration_writes_one_mapping_to_switch(cluster, letters):
    """Both indices have aliases of their own; no alias moves, and the name opens the new index."""
    with Index.create(cluster.address, collection="books", dense=letters) as old:
        old.ingest({"id": key, "text": text} for key, text in TEXTS.items())
        with Migrator.start(old, dense=Ones()) as migrator:
            migrator.fill()
            old.ingest([{"id": "d", "text": "ship"}])
            old.delete(["a"])
            before = len(cluster.seen)
            migrator.switch()
        changes = [
            (method, path)
            for method, path, *_ in cluster.seen[before:]
            if method == "PUT" or path.endswith(("_bulk", "_aliases"))
        ]
        assert changes == [
            ("PUT", "/books/_mapping"),
            ("POST", "/books~2/_bulk"),
            ("POST", "/books~2/_bulk"),
            ("PUT", "/books/_mapping"),
        ]
        assert texts_of(old.store) == {"b": "boat", "c": "plum", "d": "ship"}
    assert stored_schema(cluster.address, "books").migration == Migration("books", "books~2", "books")
    with closing(open_store(cluster.address, "books")) as now:
        assert now.schema.collection == "books~2"
        assert texts_of(now) == {"b": "boat", "c": "plum", "d": "ship"}
        for record in now.scan():
            [row] = Ones().encode_document([record.payload["text"]])
            np.testing.assert_allclose(record.vectors["dense"], row / np.linalg.norm(row), rtol=1e-6)
    with Index.open(cluster.address, collection="books", dense=Ones(), trust_model=True) as now:
        assert drop_old(now) == "books"
    assert cluster.answers.indices["books"]["documents"] == {}
    assert cluster.answers.indices["books~2"]["index"] == "books~2@1"
