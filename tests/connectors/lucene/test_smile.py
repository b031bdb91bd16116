"""SMILE, the form of bulk requests, and what is sent to a server that does not accept it."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest
from reading_smile import read_bulk

from st_connectors import open_store
from st_connectors._lucene.smile import encode_smile
from st_connectors.errors import Permanent
from st_connectors.layers.retry import NO_RETRY
from st_connectors.schema import DenseField, Schema, SparseField
from st_connectors.store import Record
from st_core.vectors import SparseVector

ENGINES = {"elasticsearch": "elasticsearch", "opensearch": "opensearchpy"}
BULK = ("POST", "/books/_bulk")
SCHEMA = Schema("books", {"dense": DenseField(2), "sparse": SparseField()})
RECORD = Record("a", {"dense": np.array([0.6, 0.8], np.float32), "sparse": SparseVector.from_mapping({7: 0.3})})
DONE = {"errors": False, "items": [{"index": {"status": 201}}]}


@pytest.fixture(params=ENGINES)
def stub(request, lucene_stub):
    """A scripted server of an engine whose client is installed."""
    pytest.importorskip(ENGINES[request.param], reason=f"needs the {request.param} extra")
    return lucene_stub(request.param)


def kinds(stub):
    """Return what the bulk requests were sent as."""
    sent = [headers for method, path, _, _, headers in stub.seen if (method, path) == BULK]
    return [{name.lower(): value for name, value in each.items()}["content-type"] for each in sent]


@pytest.mark.parametrize("size", [0, 1, 2, 31, 32, 33, 34, 63, 64, 65, 66, 300])
@pytest.mark.parametrize("letter", ["a", "é", "海", "👩"])
def test_texts_and_keys_of_every_length_are_read_back(size, letter):
    """Their forms differ by length and by whether they are ASCII."""
    for text in (letter * size, "b" + letter * size):
        assert read_bulk(encode_smile([{text: text}])) == [{text: text}]


@pytest.mark.parametrize(
    "value",
    [None, True, False, [], {}, [[1], {"b": ["c"]}], 0, 1, -1, 63, 64, -65, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1],
)
def test_values_are_read_back(value):
    """Each with its type."""
    (read,) = read_bulk(encode_smile([{"a": value}]))
    assert json.dumps(read) == json.dumps({"a": value})


def test_the_largest_integers_are_read_back_and_larger_ones_are_none():
    """They have 64 bits."""
    largest = [2**63 - 1, -(2**63)]
    assert read_bulk(encode_smile([largest])) == [largest]
    for number in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match="64 bits"):
            encode_smile([number])


def test_numbers_are_read_back_bit_by_bit():
    """Numbers of a float32 array stay what they are; other numbers take as many bits as they need."""
    bits = np.random.default_rng(5).integers(0, 2**32, 20_000, np.uint32)
    singles = bits.view(np.float32)
    singles = np.concatenate([singles[np.isfinite(singles)], np.float32([0.0, -0.0, 1e-45, 3.4028235e38])])
    doubles = [0.1, -1e300, 5e-324, 0.5, -0.0, 16_777_217.0]
    array, numbers = read_bulk(encode_smile([singles, doubles]))
    assert np.array_equal(np.array(array, np.float32).view(np.uint32), singles.view(np.uint32))
    assert list(map(float.hex, numbers)) == list(map(float.hex, doubles))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(number):
    """In arrays and alone."""
    for value in (number, np.array([1.0, number], np.float32)):
        with pytest.raises(ValueError, match="NaN"):
            encode_smile([value])


def test_a_value_that_json_does_not_have_is_refused():
    """By its type."""
    with pytest.raises(TypeError, match="bytes"):
        encode_smile([{"a": b"b"}])


def test_no_document_contains_the_separator():
    """Whatever its numbers and texts are."""
    singles = np.array([-1.0, 3.4028235e38, -1e-45], np.float32)
    assert encode_smile([{"ÿ\xff": [singles, -1e300, -(2**63), "ÿ" * 100]}]).count(b"\xff") == 1


def test_a_bulk_request_is_smile(stub):
    """A collection of this package is written by it, and its documents are those of JSON lines."""
    stub.on(*BULK, DONE)
    with closing(open_store(stub.address, "books", SCHEMA, retry=NO_RETRY)) as store:
        assert store.upsert([RECORD]) == []
    ((_, (action, document)),) = stub.asked(*BULK)
    assert action == {"index": {"_id": "a"}}
    assert np.float32(document["vector"]["dense"]).tolist() == RECORD.vectors["dense"].tolist()
    assert document["vector"]["sparse"] == {"7": float(np.float32(0.3))}
    assert ["smile" in kind for kind in kinds(stub)] == [True]


@pytest.mark.parametrize("status", [400, 406, 415])
def test_a_server_that_does_not_accept_it_gets_json(stub, status):
    """Once it has answered, the store sends no more SMILE."""
    stub.answers[BULK] = [
        (status, {}, {"error": {"type": "x", "reason": f"Content-Type [x], {status}"}}),
        (200, {}, DONE),
    ]
    with closing(open_store(stub.address, "books", SCHEMA, retry=NO_RETRY)) as store:
        assert store.upsert([RECORD]) == []
        assert store.upsert([RECORD]) == []
    assert ["smile" in kind for kind in kinds(stub)] == [True, False, False]
    assert len({str(lines) for _, lines in stub.asked(*BULK)}) == 2


@pytest.mark.parametrize(("status", "reason", "sent"), [(400, "closed", [True]), (415, "closed", [True, False])])
def test_a_request_that_is_refused_for_another_reason_is_an_error(stub, status, reason, sent):
    """The next one is SMILE again."""
    stub.fail(*BULK, status, {"error": {"type": "x", "reason": reason}})
    with closing(open_store(stub.address, "books", SCHEMA, retry=NO_RETRY)) as store:
        for _ in range(2):
            with pytest.raises(Permanent, match=reason):
                store.upsert([RECORD])
    assert ["smile" in kind for kind in kinds(stub)] == 2 * sent
