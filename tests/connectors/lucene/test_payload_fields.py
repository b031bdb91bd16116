"""Collections with ``payload=fields``: documents, mappings and records read back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._lucene.encoding import decode_json, encode_json
from st_connectors._lucene.fields import FieldsLayout
from st_connectors._lucene.filters import filter_query
from st_connectors._lucene.forms import Form, form_difference, layout_of, own_mapping, property_change, stored_schema
from st_connectors._lucene.layout import OwnLayout
from st_connectors._lucene.plain import is_field_name, is_plain
from st_connectors.elasticsearch import wire as elasticsearch
from st_connectors.filters import Eq
from st_connectors.opensearch import wire as opensearch
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField, TextField
from st_connectors.store import Parts, Record
from st_connectors.testing import corpus
from st_connectors.testing.agree import same_json
from st_core.vectors import SparseVector

SCHEMA = Schema(
    "books",
    {"dense": DenseField(2), "sparse": SparseField(), "body": TextField("text")},
    {
        "word": FilterKind.KEYWORD,
        "whole": FilterKind.INT,
        "real": FilterKind.FLOAT,
        "flag": FilterKind.BOOL,
        "day": FilterKind.DATE,
        "meta.year": FilterKind.INT,
    },
)
FIELDS = FieldsLayout(SCHEMA)
UP = np.array([0.0, 1.0], np.float32)
SPARSE = SparseVector.from_mapping({3: 0.5, 4294967294: 2.0})


def as_sent(payload):
    """Return the document of a payload as an engine receives it."""
    return decode_json(encode_json(FIELDS.to_source(Record("a", {"dense": UP, "sparse": SPARSE}, payload))))


def as_opensearch_filters(value):
    """Return a value with the keys of its objects in another order, as OpenSearch does if it leaves out fields."""
    if isinstance(value, dict):
        return {key: as_opensearch_filters(value[key]) for key in sorted(value, reverse=True)}
    return [as_opensearch_filters(item) for item in value] if isinstance(value, list) else value


def test_payload_entries_are_fields_beside_one_object():
    """Other tools see the payload as it is, with dates as they were written."""
    payload = {
        "text": "tea",
        "day": "2020-01-31 08:00",
        "meta": {"year": 1999, "by": "Ann"},
        "other": {"a.b": [1, "x"]},
    }

    document = as_sent(payload)
    system = document.pop("st_connectors")

    assert document == payload
    assert list(document) == list(payload)
    assert system == {
        "id": "a",
        "exact": '{"order":{"text":null,"day":null,"meta":{"year":null,"by":null},"other":{"a.b":null}},"hidden":{}}',
        "filter": {"day": [1_580_457_600_000_000], "meta-2e-year": [1999]},
        "vector": {"dense": [0.0, 1.0], "sparse": {"3": 0.5, "4294967294": 2.0}},
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", 1),
        (" ", 1),
        ("a.b", 1),
        ("_id", 1),
        ("st_connectors", 1),
        ("k" * 513, 1),
        ("mixed", [1, "1"]),
        ("mixed", [True, 1]),
        ("mixed", [1, {"a": 1}]),
        ("mixed", [[1], ["x"]]),
        ("long", {"text": "x" * 4001}),
        ("long", {"k" * 513: 1}),
        ("nul", {"a\0b": 1}),
        ("deep", json.loads('{"x":' * 17 + "1" + "}" * 17)),
        ("meta", 5),
        ("meta", [{"year": 1}, 5]),
        ("meta", {"a.b": 1}),
        ("meta", {"": 1}),
        ("meta", {"mixed": [1, "x"]}),
    ],
)
def test_what_no_field_can_hold_is_hidden(key, value):
    """The rest of the record stays visible, and the record is read back in its order."""
    payload = {"z": 1, key: value, "b": 2}

    document = as_sent(payload)

    assert [name for name in document if name != "st_connectors"] == ["z", "b"]
    assert same_json(dict(FIELDS.from_source("a", document, Parts.PAYLOAD).payload), payload)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mixed", [1, 1.5, None]),
        ("lists", [[1, 2], [], [[3]]]),
        ("none", None),
        ("empty", []),
        ("empty", {}),
        ("ünï 👩‍🚀", "\0"),
        ("object", {"a.b": {"": [1, "x", True]}, "_id": 1}),
        ("objects", [{"a": 1}, None, [{"b": "x"}]]),
        ("long", "x" * 100_000),
        ("deep", json.loads('{"x":' * 16 + "1" + "}" * 16)),
        ("meta", None),
        ("meta", [{"year": 1}, {"year": [2, 3], "other": {"": 1}}]),
        ("$schema", 1),
    ],
)
def test_what_a_field_can_hold_is_visible(key, value):
    """These values were accepted by OpenSearch 2.19.1 and Elasticsearch 9.5.3."""
    assert as_sent({key: value})[key] == value


@pytest.mark.parametrize("name", list(corpus.PAYLOADS))
def test_payloads_are_read_back_in_any_order_of_keys(name):
    """Hard payloads come back exactly, also from an engine that returns keys in another order."""
    document = as_opensearch_filters(as_sent(corpus.PAYLOADS[name]))
    assert same_json(dict(FIELDS.from_source("a", document, Parts.PAYLOAD).payload), corpus.PAYLOADS[name])


_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
_KEYS = st.sampled_from(["a", "b", "meta", "year", "text", "a.b", "", "_id", "st_connectors", "z"]) | st.text(
    max_size=3
)
_JSON = st.recursive(
    _SCALARS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_KEYS.filter(lambda key: key != "text"), _JSON, max_size=5))
def test_every_payload_is_read_back(payload):
    """Whatever is visible and whatever is hidden, the payload is complete and in order."""
    document = as_opensearch_filters(as_sent(payload))
    assert same_json(dict(FIELDS.from_source("a", document, Parts.PAYLOAD).payload), payload)
    assert all(is_field_name(key) for key in document if key != "st_connectors")


def test_a_change_by_another_tool_is_read():
    """The fields are the payload: changed, removed and added ones count."""
    document = as_sent({"b": 1, "a": [{"y": 1, "x": 2}], "gone": 0, "_hidden": 5})
    del document["gone"]
    document |= {"b": "new", "a": [], "added": True}

    payload = FIELDS.from_source("a", document, Parts.PAYLOAD).payload

    assert same_json(dict(payload), {"b": "new", "a": [], "_hidden": 5, "added": True})


def test_a_document_of_another_tool_is_a_record_without_vectors():
    """It has none of our fields."""
    record = FIELDS.from_source("x", {"title": "tea"}, Parts.ALL)
    assert (record.id, record.payload, record.vectors) == ("x", {"title": "tea"}, {})


def test_vectors_are_read_back():
    """They are inside the package's own object."""
    record = FIELDS.from_source("a", as_sent({"b": 1}), Parts.VECTORS)
    assert np.array_equal(record.vectors["dense"], UP)
    assert record.vectors["sparse"] == SPARSE
    assert record.payload == {}


@pytest.mark.parametrize(
    ("parts", "selector"),
    [
        (Parts.NONE, False),
        (Parts.PAYLOAD, {"excludes": ["st_connectors.id", "st_connectors.filter", "st_connectors.vector"]}),
        (Parts.VECTORS, ["st_connectors.vector"]),
        (Parts.ALL, ["*", "st_connectors.vector"]),
    ],
)
def test_only_requested_parts_are_selected(parts, selector):
    """A search for payloads transfers no vectors."""
    assert FIELDS.selector(parts) == selector


def test_searches_use_the_own_object_and_the_visible_text():
    """Filters compare the exact copies; texts are indexed once."""
    assert (FIELDS.vector("dense"), FIELDS.text("body")) == ("st_connectors.vector.dense", "text")
    assert FIELDS.order == [{"_score": "desc"}, {"st_connectors.id": "asc"}]
    assert opensearch.scan_order(FIELDS) == [{"_seq_no": "asc"}, {"st_connectors.id": "asc"}]
    assert filter_query(Eq("day", "1970-01-02"), FIELDS) == {
        "term": {"st_connectors.filter.day": {"value": 86_400_000_000}}
    }


@pytest.mark.parametrize(("wire", "objects"), [(elasticsearch, "flattened"), (opensearch, "flat_object")])
def test_declared_fields_have_native_types(wire, objects):
    """Dates are dates; a path is a typed field inside an object; other objects are one field each."""
    form = wire.form_for(SCHEMA, payload="fields", analyzer="english")
    arguments = ("9.5.3", {}) if wire is elasticsearch else ({}, {})
    mappings = wire.index_body(SCHEMA, form, *arguments)["mappings"]
    system = mappings["properties"].pop("st_connectors")
    day = mappings["properties"].pop("day")

    assert mappings["properties"] == {
        "text": {"type": "text", "analyzer": "english"},
        "meta": {"properties": {"year": {"type": "long"}}},
        "word": {"type": "keyword", "ignore_above": 8191},
        "whole": {"type": "long"},
        "real": {"type": "double"},
        "flag": {"type": "boolean"},
    }
    assert day["type"] == "date"
    assert day["format"].startswith("strict_date_optional_time||")
    assert (mappings["dynamic"], mappings["date_detection"]) == (True, False)
    assert mappings["dynamic_templates"][0] == {
        "objects": {"match_mapping_type": "object", "mapping": {"type": objects}}
    }
    assert system["dynamic"] == "strict"
    assert set(system["properties"]) == {"id", "exact", "filter", "vector"}
    assert stored_schema(mappings) == (SCHEMA, form)


def test_a_name_that_is_an_object_and_a_value_is_an_object():
    """``meta`` cannot be both; its values stay hidden and are filtered by their copies."""
    schema = Schema("c", {}, {"meta": FilterKind.INT, "meta.year": FilterKind.INT})
    mapping = own_mapping(schema, Form(payload="fields"), {})
    layout = FieldsLayout(schema)

    assert mapping["properties"]["meta"] == {"properties": {"year": {"type": "long"}}}
    document = layout.to_source(Record("a", {}, {"meta": 5}))
    assert "meta" not in document
    assert document["st_connectors"]["filter"] == {"meta": [5]}


@pytest.mark.parametrize("source", ["_text", "a.b", ""])
def test_texts_under_a_key_that_is_no_field_are_refused_at_create(source):
    """The full-text index needs the field."""
    schema = Schema("c", {"body": TextField(source)})
    with pytest.raises(ValueError, match=r"cannot be the name of a text field.*leave payload out"):
        elasticsearch.form_for(schema, payload="fields")
    assert elasticsearch.form_for(schema).payload == "string"


def test_a_path_below_the_text_is_filtered_only():
    """The texts stay texts."""
    schema = Schema("c", {"body": TextField()}, {"text.x": FilterKind.INT})
    assert FieldsLayout(schema).to_source(Record("a", {}, {"text": "tea"}))["text"] == "tea"
    assert own_mapping(schema, Form(payload="fields"), {})["properties"]["text"]["type"] == "text"


def test_unknown_and_other_payload_modes_are_refused():
    """The mode is chosen when the collection is created."""
    with pytest.raises(ValueError, match="unknown payload 'flat'; expected one of string, fields"):
        elasticsearch.form_for(SCHEMA, payload="flat")
    stored, other = elasticsearch.form_for(SCHEMA, payload="fields"), elasticsearch.form_for(SCHEMA)
    assert form_difference(stored, other, ["payload"], dense="dense_index") == (
        "the collection stores payloads as fields, not as string: leave payload out of the address, or change the "
        "collection by it (st-connectors alter --by-copy)"
    )
    assert form_difference(stored, other, [], dense="dense_index") is None


def test_the_layout_follows_from_the_stored_form():
    """Opening needs no option; collections without the entry store a string."""
    for payload, layout in (("fields", FieldsLayout), ("string", OwnLayout)):
        form = elasticsearch.form_for(SCHEMA, payload=payload)
        stored = stored_schema(own_mapping(SCHEMA, form, {}))
        assert stored is not None
        assert type(layout_of(*stored, None)) is layout


def test_further_filterable_fields_are_declared_inside_the_own_object():
    """The fields that other tools see keep their types."""
    change = property_change(FIELDS)
    [(name, copies)] = change["properties"]["st_connectors"]["properties"].items()
    assert name == "filter"
    assert copies["properties"]["meta-2e-year"] == {"type": "long"}
    assert property_change(OwnLayout(SCHEMA)) == {"properties": {"filter": copies}}


def test_values_of_nested_declared_paths_are_checked_at_every_level():
    """A path of three steps makes two objects."""
    objects = {"a": {"b": {}}}
    assert is_plain("a", {"b": {"c": 1}, "x": {"": 1}}, objects)
    assert not is_plain("a", {"b": 1}, objects)
    assert not is_plain("a", {"b": {"": 1}}, objects)
