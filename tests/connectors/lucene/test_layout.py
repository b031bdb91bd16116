"""Documents of records, and records of documents."""

from __future__ import annotations

import numpy as np
import pytest

from st_connectors._lucene.encoding import decode_json, encode_json
from st_connectors._lucene.layout import AdoptedLayout, OwnLayout, properties, to_micros
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField, TextField
from st_connectors.store import Parts, Record
from st_core.vectors import SparseVector

SCHEMA = Schema(
    "books",
    {"dense": DenseField(2), "sparse": SparseField(), "text": TextField("body")},
    {
        "word": FilterKind.KEYWORD,
        "a.b": FilterKind.INT,
        "real": FilterKind.FLOAT,
        "flag": FilterKind.BOOL,
        "day": FilterKind.DATE,
    },
)
OWN = OwnLayout(SCHEMA)
UP = np.array([0.0, 1.0], np.float32)
SPARSE = SparseVector.from_mapping({3: 0.5, 4294967294: 2.0})


def test_a_record_becomes_one_document():
    """The payload is one string, vectors and texts are copied, filterable fields are copied in their types."""
    payload = {"body": "ünï", "a.b": 1, "word": ["x", "y"], "real": 3, "flag": False, "day": "1970-01-02", "z": None}

    assert decode_json(encode_json(OWN.to_source(Record("a", {"dense": UP, "sparse": SPARSE}, payload)))) == {
        "id": "a",
        "payload": '{"body":"ünï","a.b":1,"word":["x","y"],"real":3,"flag":false,"day":"1970-01-02","z":null}',
        "filter": {"word": ["x", "y"], "a-2e-b": [1], "real": [3.0], "flag": [False], "day": [86_400_000_000]},
        "vector": {"dense": [0.0, 1.0], "sparse": {"3": 0.5, "4294967294": 2.0}},
        "text": {"text": "ünï"},
    }


def test_absent_values_are_left_out():
    """Missing vectors and texts, null and empty lists are not written: engines refuse null for some fields."""
    payload = {"body": "", "word": None, "a.b": [], "other": 1}
    assert OWN.to_source(Record("a", {}, payload)) == {
        "id": "a",
        "payload": '{"body":"","word":null,"a.b":[],"other":1}',
    }


def test_a_document_is_read_back():
    """Id, payload and vectors are those of the record, as far as they are requested."""
    payload = {"one": 1, "float": 1.0, "big": 2**63 - 1, "a": {"z": [None, True]}}
    source = decode_json(encode_json(OWN.to_source(Record("a", {"dense": UP, "sparse": SPARSE}, payload))))

    whole = OWN.from_source("a", source, Parts.ALL)
    assert (whole.id, repr(whole.payload)) == ("a", repr(payload))
    assert np.array_equal(whole.vectors["dense"], UP)
    assert whole.vectors["dense"].dtype == np.float32
    assert whole.vectors["sparse"] == SPARSE
    assert OWN.from_source("a", source, Parts.PAYLOAD).vectors == {}
    assert OWN.from_source("a", None, Parts.NONE).payload == {}


@pytest.mark.parametrize(
    ("parts", "selector"),
    [
        (Parts.NONE, False),
        (Parts.PAYLOAD, ["payload"]),
        (Parts.VECTORS, ["vector"]),
        (Parts.ALL, ["payload", "vector"]),
        (Parts.LEGS, False),
    ],
)
def test_only_requested_parts_are_selected(parts, selector):
    """``_source`` names the requested parts."""
    assert OWN.selector(parts) == selector


def test_long_keywords_are_stored_as_digests():
    """Lucene accepts terms of 32,766 bytes; a digest differs from a text that looks like one."""
    (digest,) = OWN.typed(FilterKind.KEYWORD, "x" * 8_001)
    assert digest.startswith("\x01sha256:")
    assert len(digest) == 72
    assert OWN.typed(FilterKind.KEYWORD, "ü" * 8_000) == ["ü" * 8_000]
    assert OWN.typed(FilterKind.KEYWORD, digest) != [digest]
    assert OWN.typed(FilterKind.KEYWORD, "x" * 8_002) != [digest]


@pytest.mark.parametrize(
    ("kind", "value", "typed"),
    [
        (FilterKind.INT, 2**53 + 1, [2**53 + 1]),
        (FilterKind.INT, 2.0, [2]),
        (FilterKind.INT, 2.5, []),
        (FilterKind.INT, True, []),
        (FilterKind.INT, 2**63, []),
        (FilterKind.INT, "1", []),
        (FilterKind.FLOAT, 1, [1.0]),
        (FilterKind.FLOAT, True, []),
        (FilterKind.BOOL, 1, []),
        (FilterKind.BOOL, True, [True]),
        (FilterKind.KEYWORD, 1, []),
        (FilterKind.DATE, "no date", []),
        (FilterKind.DATE, "1969-12-31T23:59:59.999999Z", [-1]),
        (FilterKind.DATE, "2020-06-01T14:00:00+02:00", [1_591_012_800_000_000]),
    ],
)
def test_only_values_of_their_kind_are_copied(kind, value, typed):
    """An engine would convert 1 to "1" and "" to false, or refuse the record."""
    assert OWN.typed(kind, value) == typed


def test_minus_zero_is_zero():
    """Lucene distinguishes them."""
    assert [str(value) for value in OWN.typed(FilterKind.FLOAT, -0.0)] == ["0.0"]


def test_dates_are_microseconds_at_both_ends_of_time():
    """From the first year to the last, within 64 bits."""
    assert to_micros("0001-01-01") == -62_135_596_800_000_000
    assert to_micros("9999-12-31T23:59:59.999999Z") == 253_402_300_799_999_999


def test_properties_of_our_own_documents():
    """They have a property for each part, with the engine's vectors."""
    tree = properties(SCHEMA, {"dense": {"type": "d"}, "sparse": {"type": "s"}}, {})
    assert tree == {
        "id": {"type": "keyword", "index": False},
        "payload": {"type": "keyword", "index": False, "doc_values": False},
        "filter": {
            "properties": {
                "word": {"type": "keyword"},
                "a-2e-b": {"type": "long"},
                "real": {"type": "double"},
                "flag": {"type": "boolean"},
                "day": {"type": "long"},
            }
        },
        "vector": {"properties": {"dense": {"type": "d"}, "sparse": {"type": "s"}}},
        "text": {"properties": {"text": {"type": "text", "analyzer": "standard"}}},
    }


PLAIN = AdoptedLayout(Schema("theirs", {"vec": DenseField(2), "deep.splade": SparseField(), "t": TextField("t")}))


def test_adopted_documents_are_the_payload_with_vectors():
    """A path with dots is an object in an object."""
    record = Record(
        "1", {"vec": UP, "deep.splade": SparseVector.from_mapping({3: 0.5})}, {"t": "tea", "deep": {"n": 1}}
    )
    source = decode_json(encode_json(PLAIN.to_source(record)))
    assert source == {"t": "tea", "deep": {"n": 1, "splade": {"3": 0.5}}, "vec": [0.0, 1.0]}
    assert record.payload == {"t": "tea", "deep": {"n": 1}}


def test_adopted_documents_are_read():
    """Vectors are removed from the payload, together with objects that had nothing else."""
    source = {"t": "tea", "deep": {"splade": {"3": 0.5}}, "vec": [0.0, 1.0]}
    read = PLAIN.from_source("1", source, Parts.ALL)
    assert read.payload == {"t": "tea"}
    assert read.vectors["deep.splade"] == SparseVector.from_mapping({3: 0.5})
    assert np.array_equal(read.vectors["vec"], UP)
    assert PLAIN.from_source("1", {"deep.splade": {"a.b": 1.0}, "n": 1}, Parts.ALL).vectors == {}
    assert source["deep"] == {"splade": {"3": 0.5}}


def test_adopted_vectors_are_selected_by_path():
    """``_source`` includes or excludes them."""
    assert PLAIN.selector(Parts.PAYLOAD) == {"excludes": ["vec", "deep.splade"]}
    assert PLAIN.selector(Parts.VECTORS) == ["vec", "deep.splade"]
    assert PLAIN.selector(Parts.ALL) == ["*", "vec", "deep.splade"]
    assert PLAIN.selector(Parts.NONE) is False
