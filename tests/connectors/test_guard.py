"""What the guard refuses, and in what form the rest reaches the store."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._records import size_of
from st_connectors.errors import Refused, Throttled, Unavailable, Unsupported
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.guard import guarded
from st_connectors.memory import MemoryStore
from st_connectors.store import (
    Candidates,
    DenseField,
    Exact,
    FilterKind,
    Fuse,
    Match,
    Metric,
    Near,
    Parts,
    Quantization,
    Record,
    Rejected,
    Rrf,
    Schema,
    SearchRequest,
    SparseField,
    TextField,
    Weighted,
)
from st_core.vectors import SparseVector

FIELDS = {
    "cosine": DenseField(3),
    "dot": DenseField(3, Metric.DOT),
    "sparse": SparseField(),
    "body": TextField("text"),
}
KINDS = {kind[0]: FilterKind(kind) for kind in ("keyword", "int", "float", "bool", "date")}
SOME = SparseVector.from_mapping({1: 1.0})
UNIT = np.array([1.0, 0.0, 0.0], np.float32)


class Watched(MemoryStore):
    """Notes every call, with other capabilities and failures where a test asks for them."""

    def __init__(self, fields=None, script=(), **capabilities):
        super().__init__(uuid.uuid4().hex, Schema("c", FIELDS if fields is None else fields, KINDS))
        super().create()
        self._capabilities = replace(self._capabilities, **capabilities)
        self.calls = []
        self.script = list(script)

    def create(self):
        self.calls.append("create")
        super().create()

    def upsert(self, records):
        self.calls.append(records)
        planned = self.script.pop(0) if self.script else []
        if isinstance(planned, Exception):
            raise planned
        super().upsert(records)
        return planned

    def delete(self, ids):
        self.calls.append(ids)
        super().delete(ids)

    def get(self, ids, *, parts=Parts.ALL):
        self.calls.append(ids)
        return super().get(ids, parts=parts)

    def search(self, requests):
        self.calls.append(requests)
        return [[] for _ in requests]

    def scan(self, *, where=None, parts=Parts.ALL, batch=1000):
        self.calls.append((where, batch))
        return super().scan(where=where, parts=parts, batch=batch)

    def count(self, where=None):
        self.calls.append(where)
        return super().count(where)


def sent(leg=None, *, where=None, **options):
    """What reaches the store of one search."""
    store = Watched()
    guarded(store).search([SearchRequest(leg or Near("sparse", SOME), where=where, **options)])
    return store.calls[0][0]


def stored(record, store=None):
    """What reaches the store of one record."""
    store = store or Watched()
    assert guarded(store).upsert([record]) == []
    return store.calls[0][0]


def refusal(record, **capabilities):
    """The message with which one record is refused; the store hears nothing of it."""
    store = Watched(**capabilities)
    (rejected,) = guarded(store, name="fake").upsert([record])
    assert store.calls == []
    assert (rejected.position, rejected.id, type(rejected.error)) == (0, record.id, Refused)
    assert str(rejected.error).startswith("fake upsert: ")
    return rejected.error.message


# Vectors


@given(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3))
def test_cosine_vectors_become_unit_vectors_once(values):
    """Unit length by the float64 norm of the float32 values; a second time changes no bit; a zero vector counts as none."""
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
    ("cosine", [1.0, 2.0], "'cosine' is dense and takes 3 numbers, not an array of shape (2,)"),
    ("cosine", [[1.0, 2.0, 3.0]], "not an array of shape (1, 3)"),
    ("cosine", [1.0, float("nan"), 0.0], "holds NaN or infinity"),
    ("dot", [1.0, float("inf"), 0.0], "holds NaN or infinity"),
    ("dot", [1.0, 1e39, 0.0], "finite in float32"),
    ("dot", ["1", "2", "3"], "takes 3 numbers, not list of"),
    ("dot", [True, False, True], "takes 3 numbers, not list of bool"),
    ("dot", [[1.0], [2.0, 3.0]], "takes 3 numbers, not list"),
    ("dot", None, "takes 3 numbers, not NoneType"),
    ("dot", SOME, "takes 3 numbers, not a sparse vector"),
    ("sparse", UNIT, "'sparse' is sparse and takes a SparseVector, not ndarray"),
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
        == "there is no field 'dens'; the collection has 'cosine', 'dot', 'sparse', 'body'"
    )
    assert "is read from the payload's 'text', and takes no vector" in refusal(Record("a", {"body": SOME}))


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
            "the vector of field 'v' is all zeros, which counts as none, and the field is not optional",
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


# Ids and payloads


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
    assert "an id is a string, not int: 7" in str(guarded(Watched()).upsert([Record(7)])[0].error)
    with pytest.raises(TypeError, match="a list of strings, not one string"):
        guarded(Watched()).get("abc")


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=10,
)


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
        ({1: "x"}, "the keys of payload are strings, not int: 1"),
        ({"x": {None: 1}}, "the keys of payload['x'] are strings"),
        ({"x": (1, 2)}, "payload['x'] is tuple, which is not JSON"),
        ({"x": b"bytes"}, "payload['x'] is bytes"),
        ({"x": np.int64(1)}, "payload['x'] is int64"),
        ({"x": "\udc00"}, "payload['x'] holds half of a surrogate pair"),
        ({"\ud800": 1}, "a key of payload holds half of a surrogate pair"),
        (nested(70), "nests deeper than 64 levels"),
        ([("x", 1)], "a payload is a mapping, not list"),
        ({"text": 5}, "payload['text'] is searched as text and must be a string, not int"),
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
    "i": [1.0, "1", True, [1, False]],
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


# Batches


def test_one_bad_record_does_not_keep_the_others_out():
    """Positions are those of the caller's batch."""
    store = Watched()
    rejected = guarded(store).upsert([Record("a"), Record(""), Record("b"), Record("c", {"dot": [1]}), Record("d")])

    assert [(item.position, item.id) for item in rejected] == [(1, ""), (3, "c")]
    assert [record.id for record in store.calls[0]] == ["a", "b", "d"]


def test_the_last_of_equal_ids_wins():
    """Among those that are not refused, as if they had come one by one."""
    store = Watched()
    guarded(store).upsert(
        [Record("a", {}, {"n": 1}), Record("b"), Record("a", {}, {"n": 2}), Record("a", {}, {"n": float("nan")})]
    )

    assert [(record.id, record.payload) for record in store.calls[0]] == [("b", {}), ("a", {"n": 2})]


def test_rejections_by_the_store_have_the_callers_positions():
    """Behind refused, repeated and split records."""
    busy = Throttled("busy", store="fake", operation="upsert")
    store = Watched(max_batch=2, script=[[], [Rejected(1, "e", busy)]])

    rejected = guarded(store).upsert([Record(""), Record("a"), Record("b"), Record("a"), Record("c"), Record("e")])

    assert [[record.id for record in call] for call in store.calls] == [["b", "a"], ["c", "e"]]
    assert [(item.position, item.id) for item in rejected] == [(0, ""), (5, "e")]
    assert rejected[1].error is busy


@given(st.lists(st.integers(0, 300), max_size=20), st.none() | st.integers(1, 5), st.none() | st.integers(500, 900))
def test_batches_are_split_by_count_and_bytes(sizes, most, most_bytes):
    """In order, every record once, no part above either limit, and none that could have taken the next record."""
    store = Watched(max_batch=most, max_bytes=most_bytes)
    records = [Record(f"r{at}", {}, {"x": "y" * size}) for at, size in enumerate(sizes)]

    assert guarded(store).upsert(records) == []

    assert [record.id for call in store.calls for record in call] == [record.id for record in records]
    for call, following in zip(store.calls, [*store.calls[1:], []], strict=False):
        total = sum(map(size_of, call))
        assert len(call) <= (most or 99)
        assert total <= (most_bytes or 1e9)
        if following:
            assert len(call) == most or total + size_of(following[0]) > (most_bytes or 1e9)


def test_a_record_larger_than_a_request_is_refused():
    """With about its size and the limit."""
    message = refusal(Record("a", {"dot": UNIT}, {"x": "y" * 1000}), max_bytes=900)
    assert message == f"the record takes about {64 + 1 + 3 * 24 + 1009} bytes, and a request at most 900"


def test_the_estimate_of_bytes_is_not_below_json():
    """24 bytes a number and 36 a weight hold the longest that is written, so that a request is not above its limit."""
    rng = np.random.default_rng(3)
    vector = -(rng.normal(size=300) * 10.0 ** rng.integers(-30, 30, 300)).astype(np.float32)
    weights = SparseVector.from_arrays(np.arange(2**32 - 300, 2**32 - 1), rng.random(299).astype(np.float32))
    record = Record("a", {"d": vector, "s": weights}, {"text": "ünï"})

    dense, indices, values = (",".join(map(repr, each.tolist())) for each in (vector, weights.indices, weights.values))
    body = f'{{"id":"a","vector":{{"d":[{dense}],"s":{{"indices":[{indices}],"values":[{values}]}}}},"payload":{{"text":"ünï"}}}}'

    assert len(body) < size_of(record)


def test_a_failure_after_a_part_went_in_rejects_the_rest():
    """What was confirmed stays confirmed; the rest carries the error and is not tried."""
    down = Unavailable("down", store="fake", operation="upsert")
    store = Watched(max_batch=2, script=[[], down])

    rejected = guarded(store).upsert([Record(key) for key in "abcde"])

    assert [(item.position, item.id, item.error) for item in rejected] == [
        (2, "c", down),
        (3, "d", down),
        (4, "e", down),
    ]
    assert len(store.calls) == 2


def test_a_failure_of_the_first_part_is_raised():
    """Nothing went in."""
    store = Watched(max_batch=2, script=[Unavailable("down", store="fake", operation="upsert")])
    with pytest.raises(Unavailable):
        guarded(store).upsert([Record(key) for key in "abcde"])


def test_nothing_is_sent_for_nothing():
    """Empty batches, id lists and searches make no call."""
    store = Watched()
    wrapped = guarded(store)
    assert (wrapped.upsert([]), wrapped.delete([]), wrapped.get([]), wrapped.search([])) == ([], None, [], [])
    assert store.calls == []


def test_ids_are_asked_for_in_parts():
    """As many at a time as a batch may have, in order."""
    store = Watched(max_batch=2)
    wrapped = guarded(store)
    wrapped.upsert([Record(key) for key in "abc"])
    store.calls.clear()

    assert [record.id for record in wrapped.get(["c", "x", "a"])] == ["c", "a"]
    wrapped.delete(["a", "b", "c"])
    assert store.calls == [["c", "x"], ["a"], ["a", "b"], ["c"]]


def test_upsert_takes_records_only():
    """Anything else is the caller's mistake, told before anything is sent."""
    store = Watched()
    with pytest.raises(TypeError, match="number 1 is dict"):
        guarded(store).upsert([Record("a"), {"id": "b"}])
    assert store.calls == []


@given(st.data())
def test_arguments_are_not_changed(data):
    """Neither vectors nor payload nor the list."""
    vector = np.array(data.draw(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)), np.float32)
    payload = {"x": data.draw(JSON)}
    kept, written = vector.copy(), json.dumps(payload)
    records = [Record("a", {"cosine": vector, "dot": vector}, payload)]
    store = guarded(Watched())

    store.upsert(records)
    store.search([SearchRequest(Near("cosine", vector))])

    assert (len(records), vector.tobytes(), json.dumps(payload)) == (1, kept.tobytes(), written)


# Schemas


@pytest.mark.parametrize(
    ("fields", "capabilities", "message"),
    [
        (
            {"v": DenseField(3, Metric.DOT)},
            {"metrics": frozenset({Metric.COSINE})},
            "field 'v' asks for metric dot; this store has cosine",
        ),
        (
            {"v": DenseField(3, quantization=Quantization.INT8)},
            {},
            "field 'v' asks for quantization int8; this store has none",
        ),
        ({"v": DenseField(30)}, {"max_dimension": 29}, "field 'v' has 30 dimensions, and the most here is 29"),
        ({"v": SparseField()}, {"sparse": False}, "field 'v': this store has no sparse vectors"),
        ({"v": TextField()}, {"text": False}, "field 'v': this store has no text search"),
    ],
)
def test_what_a_store_cannot_hold_is_refused_at_create(fields, capabilities, message):
    """Unsupported, naming field, wish and what there is; the store hears nothing."""
    store = Watched(fields, **capabilities)
    with pytest.raises(Unsupported) as caught:
        guarded(store, name="fake").create()
    assert str(caught.value) == f"fake create: {message}"
    assert store.calls == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"v": DenseField(0)}, "dimension of field 'v' must be at least 1"), ({"": SparseField()}, "needs a name")],
)
def test_schemas_that_mean_nothing_are_refused(fields, message):
    """Whatever the store."""
    with pytest.raises(ValueError, match=message):
        guarded(Watched(fields)).create()


def test_a_good_schema_is_created():
    """And passed on once."""
    store = Watched()
    guarded(store).create()
    assert store.calls == ["create"]


# Searches


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SearchRequest(Near("nope", UNIT)), "there is no field 'nope' to search; the collection has 'cosine'"),
        (SearchRequest(Near("body", UNIT)), "field 'body' is text: search it with Match"),
        (SearchRequest(Match("dot", "x")), "field 'dot' holds vectors: search it with Near"),
        (SearchRequest(Match("body", None)), "Match takes a text, not NoneType"),
        (SearchRequest(Match("body", "\ud800")), "half of a surrogate pair"),
        (SearchRequest("body"), "a leg is Near or Match, not str"),
        (SearchRequest(Near("sparse", SOME), limit=0), "limit must be at least 1, not 0"),
        (SearchRequest(Near("sparse", SOME), limit=-1), "limit must be at least 1"),
        (SearchRequest(Near("sparse", SOME), limit=2.0), "limit is a whole number, not 2.0"),
        (SearchRequest(Near("sparse", SOME), limit=True), "limit is a whole number, not True"),
        (SearchRequest(Near("sparse", SOME), offset=-1), "offset must be at least 0, not -1"),
        (SearchRequest(Near("sparse", SOME), effort=Candidates(0)), "the count of Candidates must be at least 1"),
        (
            SearchRequest(Near("sparse", SOME), effort="exact"),
            "effort is Exact(), Default() or Candidates(n), not 'exact'",
        ),
        (SearchRequest(Near("sparse", SOME), parts=1), "parts is of Parts, not 1"),
        (SearchRequest(Fuse(())), "at least one leg"),
        (SearchRequest(Fuse((Near("sparse", SOME),), depth=0)), "depth must be at least 1"),
        (
            SearchRequest(Fuse((Near("sparse", SOME),), depth=10), limit=5, offset=6),
            "offset + limit is 11, beyond depth 10",
        ),
        (SearchRequest(Fuse((Near("nope", UNIT),))), "there is no field 'nope'"),
        (SearchRequest(Fuse((Fuse(()),))), "a leg is Near or Match, not Fuse"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Rrf(0))), "k of Rrf must be at least 1"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Rrf(60, (1.0, 2.0)))), "2 weights for 1 legs"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((-1.0,)))), "none below 0"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((0.0,)))), "one above it"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((float("nan"),)))), "finite"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((1.0,), "l2"))), "'min_max', not 'l2'"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method="rrf")), "fused by Rrf or Weighted, not 'rrf'"),
        ("text", "a search is a SearchRequest, not str"),
    ],
)
def test_searches_that_mean_nothing_are_refused(request_, message):
    """ValueError or TypeError, before any request of the batch is sent."""
    store = Watched()
    with pytest.raises((ValueError, TypeError)) as caught:
        guarded(store).search([SearchRequest(Near("sparse", SOME)), request_])
    assert message in str(caught.value)
    assert store.calls == []


@pytest.mark.parametrize(
    ("request_", "capabilities", "message"),
    [
        (
            SearchRequest(Near("sparse", SOME), limit=8, offset=3),
            {"max_limit": 10},
            "offset + limit is 11, and the most this store gives is 10",
        ),
        (
            SearchRequest(Fuse((Near("sparse", SOME),), 11)),
            {"max_limit": 10},
            "depth is 11, and the most this store gives is 10",
        ),
        (
            SearchRequest(Near("sparse", SOME), effort=Candidates(5)),
            {"efforts": frozenset({"default"})},
            "effort candidates is not for this store, which has default",
        ),
        (SearchRequest(Near("sparse", SOME), effort=Exact()), {"efforts": frozenset({"default"})}, "effort exact"),
        (
            SearchRequest(Near("sparse", SparseVector.from_mapping({1: 1.0, 2: 1.0}))),
            {"max_query_terms": 1},
            "2 terms, and the most here is 1: keep the heaviest with vector.top(1)",
        ),
        (SearchRequest(Match("body", "x")), {"text": False}, "this store has no text search"),
        (
            SearchRequest(Near("sparse", SOME), where=Not(Exists("i"))),
            {"filters": frozenset({"exists"})},
            "filter not is not for this store, which has exists",
        ),
        (
            SearchRequest(Near("sparse", SOME), where=And((Eq("i", 1),))),
            {"filters": frozenset({"and"})},
            "filter eq is not for this store, which has and",
        ),
    ],
)
def test_searches_beyond_the_stores_abilities_are_unsupported(request_, capabilities, message):
    """The store's own limits; no byte is sent."""
    store = Watched(**capabilities)
    with pytest.raises(Unsupported) as caught:
        guarded(store, name="fake").search([request_])
    assert str(caught.value).startswith("fake search: ")
    assert message in str(caught.value)
    assert store.calls == []


def test_good_searches_pass_unchanged():
    """Legs keep their order and everything else its value."""
    method = Rrf(10, (1.0, 0.0))
    request = SearchRequest(
        Fuse((Near("sparse", SOME), Match("body", "x y")), 20, method), 5, 15, Eq("i", 1), Parts.ALL, Candidates(9)
    )
    store = Watched()
    guarded(store).search([request])

    (got,) = store.calls[0]
    assert (got.limit, got.offset, got.where, got.parts, got.effort) == (5, 15, Eq("i", 1), Parts.ALL, Candidates(9))
    assert (got.rank.legs[0].vector, got.rank.legs[1], got.rank.depth, got.rank.method) == (
        SOME,
        Match("body", "x y"),
        20,
        method,
    )


# Filters


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Eq("i", 2020.0), Eq("i", 2020)),
        (Eq("i", 2**63 - 1), Eq("i", 2**63 - 1)),
        (In("i", (1.0, 2)), In("i", (1, 2))),
        (In("k", ["a"]), In("k", ("a",))),
        (Eq("f", 1), Eq("f", 1.0)),
        (Eq("b", True), Eq("b", True)),
        (Eq("d", "2020-01-31T08:00+00:00"), None),
        (Eq("d", "2020-01-31"), Eq("d", "2020-01-31T00:00:00Z")),
        (
            Range("d", gte="2020-01-31 08:00:00.5", lt="2020-01-31T08:00:00-01:00"),
            Range("d", gte="2020-01-31T08:00:00.500000Z", lt="2020-01-31T09:00:00Z"),
        ),
        (Range("i", gt=1.5, lt=3.5), Range("i", gt=1, lt=4)),
        (Range("i", gte=1.5, lte=3.5), Range("i", gte=2, lte=3)),
        (Range("i", gte=-1.5), Range("i", gte=-1)),
        (Range("f", gt=1, lte=2), Range("f", gt=1.0, lte=2.0)),
        (Or((Not(Exists("k")), And(()))), Or((Not(Exists("k")), And(())))),
    ],
)
def test_filter_values_take_the_form_of_their_kind(where, expected):
    """Whole floats on int fields, floats on float fields, dates in UTC; bounds between integers are moved to the next."""
    if expected is None:
        with pytest.raises(ValueError, match="is no date"):
            sent(where=where)
        return
    got = sent(where=where).where
    assert got == expected
    assert repr(got) == repr(expected)


@given(st.sampled_from(["gt", "gte", "lt", "lte"]), st.floats(-5, 5), st.integers(-7, 7))
def test_a_bound_between_integers_keeps_its_meaning(side, bound, value):
    """Every integer is on the side on which it was."""
    holds = {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[side]
    store = Watched()
    guarded(store).upsert([Record("a", {}, {"i": value})])
    assert guarded(store).count(Range("i", **{side: bound})) == holds


BAD_FILTERS = [
    (Eq("nope", 1), "field 'nope' is not filterable; this collection filters on 'k', 'i', 'f', 'b', 'd'"),
    (Exists("nope"), "field 'nope' is not filterable"),
    (In("nope", ()), "field 'nope' is not filterable"),
    (Range("nope", gt=1), "field 'nope' is not filterable"),
    (Eq("k", 1), "field 'k' holds keyword: 1 cannot be compared with it"),
    (Eq("i", "1"), "field 'i' holds int: '1' cannot be compared with it"),
    (Eq("i", 1.5), "field 'i' holds int: 1.5"),
    (Eq("i", True), "field 'i' holds int: True"),
    (Eq("i", 2**63), "9223372036854775808 is beyond the 64 bits of field 'i'"),
    (Eq("i", float("inf")), "field 'i' holds int: inf"),
    (Eq("f", "x"), "field 'f' holds float: 'x'"),
    (Eq("f", True), "field 'f' holds float: True"),
    (Eq("f", float("nan")), "field 'f' holds finite numbers"),
    (Eq("f", 10**400), "field 'f' holds finite numbers"),
    (Eq("b", 1), "field 'b' holds bool: 1"),
    (Eq("d", "soon"), "'soon' is no date: write 2020-01-31"),
    (Eq("d", 2020), "field 'd' holds date: 2020"),
    (Eq("k", None), "ask for null with Not(Exists('k'))"),
    (Eq("k", "\ud800"), "half of a surrogate pair"),
    (In("k", ("a", 1)), "field 'k' holds keyword: 1"),
    (In("k", "ab"), "a tuple of values, not a string"),
    (Range("k", gt="a"), "field 'k' holds keyword: Range is for numbers and dates"),
    (Range("b", gt=0), "field 'b' holds bool"),
    (Range("i"), "Range('i') has no bound"),
    (Range("i", gt="2020"), "field 'i' holds int: '2020'"),
    (Range("f", lt=float("inf")), "field 'f' holds finite numbers"),
    (And((Eq("i", 1), Not(Or((Eq("k", 1),))))), "field 'k' holds keyword"),
    ("i = 1", "a filter is one of Eq, In, Range, Exists, And, Or, Not; got 'i = 1'"),
]


@pytest.mark.parametrize(("where", "message"), BAD_FILTERS)
def test_filters_that_mean_nothing_are_refused(where, message):
    """In searches, scans and counts alike, at once and before any byte."""
    store = Watched()
    wrapped = guarded(store)
    for call in (
        lambda: wrapped.search([SearchRequest(Near("sparse", SOME), where=where)]),
        lambda: wrapped.scan(where=where),
        lambda: wrapped.count(where),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        assert message in str(caught.value)
    assert store.calls == []


def test_filters_nest_to_a_limit():
    """So that no store meets its own."""
    where = Exists("i")
    for _ in range(100):
        where = Not(where)
    assert sent(where=where).where == where
    with pytest.raises(ValueError, match="nests deeper than 100 levels"):
        sent(where=Not(where))


def test_scans_are_checked_when_called_and_paged_within_the_limit():
    """Not at the first record; pages are no larger than what the store gives."""
    store = Watched(max_limit=50)
    wrapped = guarded(store)
    for batch in (0, -1, 2.5):
        with pytest.raises((ValueError, TypeError), match="batch"):
            wrapped.scan(batch=batch)
    wrapped.scan(where=Eq("i", 1.0))
    wrapped.scan(batch=7)
    assert store.calls == [(Eq("i", 1), 50), (None, 7)]
    with pytest.raises(TypeError, match="parts is of Parts"):
        wrapped.get(["a"], parts="all")


def test_everything_else_passes_through():
    """The wrapper keeps schema, capabilities and life."""
    store = Watched()
    wrapped = guarded(store)
    wrapped.upsert([Record("a")])
    wrapped.refresh()
    wrapped.close()
    assert (wrapped.schema, wrapped.capabilities, wrapped.count()) == (store.schema, store.capabilities, 1)
    wrapped.drop()
    wrapped.drop()
