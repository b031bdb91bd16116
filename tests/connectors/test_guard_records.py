"""What the guard refuses of a record, and in what form the rest reaches the store: vectors, ids, payloads."""

from __future__ import annotations

import json
from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watched import JSON, KINDS, SOME, UNIT, Watched, refusal, sent, stored

from st_connectors.layers.guard import guarded
from st_connectors.schema import DenseField, SparseField
from st_connectors.store import Near, Record, SearchRequest
from st_core.vectors import SparseVector


@given(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3))
def test_cosine_vectors_become_unit_vectors_once(values):
    """Unit length by the float64 norm of the float32 values; a second time changes no bit.

    A zero vector counts as none.
    """
    record = stored(Record("a", {"cosine": values}))
    wide = np.array(values, np.float32).astype(np.float64)
    length = float(np.linalg.norm(wide))
    if length == 0.0:
        assert record.vectors == {}
        return

    got = record.vectors["cosine"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wide / length, rtol=2e-7, atol=1e-7)
    again = stored(Record("a", {"cosine": got})).vectors["cosine"]
    assert again.tobytes() == got.tobytes()
    queried = sent(Near("cosine", values)).rank.vector
    assert queried.tobytes() == got.tobytes()


@pytest.mark.parametrize("length", [1 - 2e-7, 1 + 2e-7, 0.999, 1.001, 1e-30, 1e30])
def test_vectors_near_unit_length_are_normalised_too(length):
    """Only what float32 rounding makes of a unit vector is left as it is."""
    got = stored(Record("a", {"cosine": np.array([0.6, 0.0, 0.8]) * length})).vectors["cosine"]
    assert abs(float(np.linalg.norm(got.astype(np.float64))) - 1.0) <= 1e-7


@pytest.mark.parametrize(
    "given_as",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        np.array([1, 2, 3], np.float64),
        np.array([1, 2, 3], np.float16),
        np.array([1, 2, 3], np.int64),
        np.array([1, 9, 2, 9, 3, 9], np.float32)[::2],
    ],
    ids=repr,
)
def test_any_array_becomes_float32(given_as):
    """Lists, doubles, halves, integers and strided views; fields that are not cosine keep their length."""
    for vector in (stored(Record("a", {"dot": given_as})).vectors["dot"], sent(Near("dot", given_as)).rank.vector):
        assert vector.dtype == np.float32
        assert vector.flags.c_contiguous
        assert vector.tolist() == [1.0, 2.0, 3.0]


BAD_VECTORS = [
    ("cosine", [1.0, 2.0], "dense field 'cosine' expects 3 numbers, not an array of shape (2,)"),
    ("cosine", [[1.0, 2.0, 3.0]], "not an array of shape (1, 3)"),
    ("cosine", [1.0, float("nan"), 0.0], "not NaN or infinity"),
    ("dot", [1.0, float("inf"), 0.0], "not NaN or infinity"),
    ("dot", [1.0, 1e39, 0.0], "finite in float32"),
    ("dot", ["1", "2", "3"], "expects 3 numbers, not list of"),
    ("dot", [True, False, True], "expects 3 numbers, not list of bool"),
    ("dot", [[1.0], [2.0, 3.0]], "expects 3 numbers, not list"),
    ("dot", None, "expects 3 numbers, not NoneType"),
    ("dot", SOME, "expects 3 numbers, not a sparse vector"),
    ("sparse", UNIT, "sparse field 'sparse' expects a SparseVector, not ndarray"),
    ("sparse", {1: 1.0}, "SparseVector.from_mapping"),
]


@pytest.mark.parametrize(("field", "vector", "message"), BAD_VECTORS)
def test_vectors_that_do_not_fit_are_refused(field, vector, message):
    """In a record they make it rejected, in a search they are the caller's error; no byte is sent for either."""
    assert message in refusal(Record("a", {field: vector}))
    store = Watched()
    with pytest.raises((ValueError, TypeError)) as caught:
        guarded(store).search([SearchRequest(Near("sparse", SOME)), SearchRequest(Near(field, vector))])
    assert message in str(caught.value)
    assert store.calls == []


def test_a_vector_for_a_field_that_is_not_there_is_refused():
    """The message lists the fields; a text field takes no vector."""
    assert (
        refusal(Record("a", {"dens": UNIT}))
        == "unknown field 'dens'; the collection has 'cosine', 'dot', 'sparse', 'body'"
    )
    assert "is text, read from the payload's 'text': leave out its vector" in refusal(Record("a", {"body": SOME}))


def test_vectors_that_say_nothing_are_left_out():
    """Zero and empty vectors count as lacking, whatever the metric."""
    record = stored(
        Record("a", {"cosine": [0, 0, 0], "dot": [0.0, 0.0, 1e-60], "sparse": SparseVector.from_mapping({})})
    )
    assert record.vectors == {}


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({}, "the vector of field 'v' is missing, and the field is not optional"),
        (
            {"v": [0.0, 0.0, 0.0]},
            "the vector of field 'v' is all zeros, which counts as absent, and the field is not optional",
        ),
        (
            {"v": UNIT, "s": SparseVector.from_mapping({})},
            "the vector of field 's' is empty, and the field is not optional",
        ),
    ],
)
def test_a_record_that_lacks_a_needed_vector_is_refused(vectors, message):
    """By name, never filled with a dummy."""
    assert (
        refusal(Record("a", vectors), fields={"v": DenseField(3, optional=False), "s": SparseField(optional=False)})
        == message
    )


def test_a_store_that_needs_every_vector_gets_only_whole_records():
    """Where capabilities.optional_vectors is false, optional fields are needed too."""
    message = refusal(Record("a", {"v": UNIT}), fields={"v": DenseField(3), "s": SparseField()}, optional_vectors=False)
    assert message == "the vector of field 's' is missing, and this store needs every vector of every record"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "at least one character"),
        ("x" * 513, "at most 512 bytes of UTF-8"),
        ("é" * 257, "has 514"),
        ("a\ud800", "half of a surrogate pair"),
    ],
)
def test_ids_are_1_to_512_bytes_of_utf8(key, message):
    """In records they are rejected, in reads and deletes the caller's error."""
    assert message in refusal(Record(key))
    store = Watched()
    for call in (guarded(store).get, guarded(store).delete):
        with pytest.raises(ValueError, match=message):
            call(["fine", key])
    assert store.calls == []


@pytest.mark.parametrize("key", ["a", "x" * 512, "é" * 256, "with space / slash", "🎉", " ", "\x00"])
def test_any_other_string_is_an_id(key):
    """Nothing is changed about it."""
    assert stored(Record(key)).id == key


def test_ids_are_strings():
    """Numbers are not made into strings, for 1 and "1" would meet."""
    assert "an id must be a string, not int: 7" in str(guarded(Watched()).upsert([Record(7)])[0].error)
    with pytest.raises(TypeError, match="must be a list of strings, not one string"):
        guarded(Watched()).get("abc")


@given(st.dictionaries(st.text(max_size=3).filter(lambda key: key not in {*KINDS, "text"}), JSON, max_size=4))
def test_json_payloads_arrive_as_given(payload):
    """Types, values and the order of keys, in a copy that the store may keep."""
    before = json.dumps(payload)
    got = stored(Record("a", {}, payload)).payload

    assert json.dumps(got) == json.dumps(payload) == before
    assert got is not payload


class Colour(StrEnum):
    RED = "red"


def test_subclasses_become_plain_values():
    """So that no driver meets a type it does not know."""
    got = stored(Record("a", {}, {Colour.RED: [Colour.RED, np.float64(0.5)]})).payload
    assert got == {"red": ["red", 0.5]}
    assert [type(key) for key in got] == [str]
    assert [type(value) for value in got["red"]] == [str, float]


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"x": float("nan")}, "payload['x'] is nan"),
        ({"x": [1, {"y": float("inf")}]}, "payload['x'][1]['y'] is inf"),
        ({"x": 2**63}, "payload['x'] is 9223372036854775808, beyond 64 bits"),
        ({1: "x"}, "the keys of payload must be strings, not int: 1"),
        ({"x": {None: 1}}, "the keys of payload['x'] must be strings"),
        ({"x": (1, 2)}, "payload['x'] is tuple, not JSON"),
        ({"x": b"bytes"}, "payload['x'] is bytes"),
        ({"x": np.int64(1)}, "payload['x'] is int64"),
        ({"x": "\udc00"}, "payload['x'] contains half of a surrogate pair"),
        ({"\ud800": 1}, "a key of payload contains half of a surrogate pair"),
        (nested(70), "nests deeper than 64 levels"),
        ([("x", 1)], "a payload must be a mapping, not list"),
        ({"text": 5}, "payload['text'] is the text of a field and must be a string, not int"),
    ],
)
def test_what_is_not_json_is_refused(payload, message):
    """The message says where it is."""
    assert message in refusal(Record("a", {}, payload))


GOOD = {
    "k": ["", "x", ["a", "b"], [], None],
    "i": [0, -(2**63), 2**63 - 1, [1, 2]],
    "f": [0.5, 1, [1, 2.5]],
    "b": [True, [True, False]],
    "d": ["2020-01-31", "2020-01-31T08:00:00.5+01:00", ["2020-01-31 08:00"]],
}
BAD = {
    "k": [1, True, {"x": 1}, ["a", 1], ["a", None], [["a"]]],
    "i": [1.5, 2.0**63, float(-(2**70)), "1", True, [1, False], [1, 0.5]],
    "f": ["0.5", True],
    "b": [1, "true"],
    "d": ["31.1.2020", "2020-02-30", "2020-W05", 20200131, "2020-01-31T08:00:00+25:00"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_filterable_values_of_their_kind_are_taken(name, value):
    """One value or a list of them; null and empty lists are values that match nothing."""
    assert stored(Record("a", {}, {name: value})).payload == {name: value}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_filterable_values_of_another_kind_are_refused(name, value):
    """A store would index them in its own way or not at all; the message names the declared kind."""
    assert f"payload[{name!r}] is filterable as {KINDS[name].value}, and " in refusal(Record("a", {}, {name: value}))


@pytest.mark.parametrize(
    ("value", "whole"),
    [(2020.0, 2020), (-0.0, 0), ([2020.0, 3], [2020, 3]), (float(2**53), 2**53), (-(2.0**63), -(2**63))],
)
def test_a_float_without_a_fraction_is_a_whole_number_on_an_int_field(value, whole):
    """Pandas writes integers as floats if a cell of their column is empty; other fields keep their floats."""
    payload = stored(Record("a", {}, {"i": value, "f": value, "free": value})).payload

    assert payload == {"i": whole, "f": value, "free": value}
    assert "." not in json.dumps(payload["i"])
    assert "." in json.dumps(payload["f"])
    assert "." in json.dumps(payload["free"])
