"""A server, or a proxy before it, that refuses requests above a size."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from st_connectors import open_store
from st_connectors.errors import Refused
from st_connectors.layers.retry import NO_RETRY
from st_connectors.schema import Schema, TextField
from st_connectors.store import Record

ENGINES = {"elasticsearch": "elasticsearch", "opensearch": "opensearchpy"}
LIMIT = 4000
"""Bytes of a request."""


class Bulk:
    """Answers to bulk requests as the servers do, and the stored ids."""

    def __init__(self):
        self.stored, self.sizes = [], []

    def __call__(self, body):
        self.sizes.append(len(body))
        if len(body) > LIMIT:
            return 413, {"Content-Type": "text/html"}, b"<html>413 Request Entity Too Large</html>"
        ids = [json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]
        self.stored += ids
        return 200, {}, {"errors": False, "items": [{"index": {"status": 201}} for _ in ids]}


@pytest.mark.parametrize("engine", ENGINES)
def test_one_document_that_is_too_large_is_refused_and_its_neighbours_are_stored(lucene_stub, engine):
    """A batch that is too large only as a whole is stored in parts."""
    pytest.importorskip(ENGINES[engine], reason=f"needs the {engine} extra")
    stub, bulk = lucene_stub(engine), Bulk()
    stub.answers["POST", "/books/_bulk"] = [bulk]
    records = [Record(f"r{at}", payload={"text": "sea " * (2000 if at == 5 else 100)}) for at in range(12)]
    with closing(open_store(stub.address, "books", Schema("books", {"text": TextField()}), retry=NO_RETRY)) as store:
        rejected = store.upsert(records)

    assert [(item.position, item.id, type(item.error), item.error.status) for item in rejected] == [
        (5, "r5", Refused, 413)
    ]
    assert "413 Request Entity Too Large" in str(rejected[0].error)
    assert bulk.stored == [f"r{at}" for at in range(12) if at != 5]
