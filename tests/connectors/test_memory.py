"""The reference store compared with formulas: the one store whose numbers no other store checks."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors import _matching, bm25
from st_connectors.errors import NotFound, SchemaMismatch
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.memory import PLUGIN, MemoryStore, matches
from st_connectors.plugin import Address
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import Fuse, Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

FIELDS = {
    "cosine": DenseField(3, Metric.COSINE),
    "dot": DenseField(3, Metric.DOT),
    "euclidean": DenseField(3, Metric.EUCLIDEAN),
    "sparse": SparseField(),
    "text": TextField("body"),
}
KINDS = {
    "k": FilterKind.KEYWORD,
    "i": FilterKind.INT,
    "f": FilterKind.FLOAT,
    "b": FilterKind.BOOL,
    "d": FilterKind.DATE,
}
NUMBERS = st.floats(-100, 100, width=32)


def fresh(**options):
    store = MemoryStore(uuid.uuid4().hex, Schema("c", FIELDS, KINDS, **options))
    store.create()
    return store


def array(*values):
    return np.array(values, dtype=np.float32)


def answers(store, leg, **options):
    return [(hit.id, hit.score) for hit in store.search([SearchRequest(leg, **options)])[0]]


@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), max_size=8), st.lists(NUMBERS, min_size=3, max_size=3))
def test_dense_scores_are_the_formulas_of_their_metrics(rows, query):
    """Cosine lies in [-1, 1], dot is the inner product, Euclidean is minus the distance; order is (-score, id)."""
    store = fresh()
    store.upsert(
        [
            Record(f"r{at}", {name: array(*row) for name in ("cosine", "dot", "euclidean")})
            for at, row in enumerate(rows)
        ]
    )
    expected = {"cosine": {}, "dot": {}, "euclidean": {}}
    for at, row in enumerate(rows):
        if not any(row):
            continue
        dot = math.fsum(a * b for a, b in zip(row, query, strict=True))
        expected["dot"][f"r{at}"] = dot
        expected["euclidean"][f"r{at}"] = -math.dist(row, query)
        if any(query):
            expected["cosine"][f"r{at}"] = dot / math.hypot(*row) / math.hypot(*query)

    for name, scores in expected.items():
        got = answers(store, Near(name, array(*query)))
        assert dict(got) == pytest.approx(scores, rel=1e-9, abs=1e-9)
        assert got == sorted(got, key=lambda item: (-item[1], item[0]))
        if name == "cosine":
            assert all(-1.0 <= score <= 1.0 for _, score in got)


@given(
    st.lists(st.dictionaries(st.integers(0, 6), st.floats(0.125, 9, width=32), max_size=4), max_size=8),
    st.dictionaries(st.integers(0, 6), st.floats(0.125, 9, width=32), max_size=4),
)
def test_sparse_scores_are_inner_products_of_records_that_share_a_term(rows, query):
    """A record without a shared index is not a hit, and an empty query has no hits."""
    store = fresh()
    store.upsert([Record(f"r{at}", {"sparse": SparseVector.from_mapping(row)}) for at, row in enumerate(rows)])

    got = dict(answers(store, Near("sparse", SparseVector.from_mapping(query))))

    assert got == pytest.approx(
        {
            f"r{at}": math.fsum(row[key] * query[key] for key in row.keys() & query.keys())
            for at, row in enumerate(rows)
            if row.keys() & query.keys()
        },
        rel=1e-9,
    )


def test_cosine_never_leaves_its_range():
    """Rounding can take the quotient of a vector with itself above 1; the score stays at 1."""
    store = fresh()
    rows = np.random.default_rng(5).normal(size=(500, 3)).astype(np.float32)
    store.upsert([Record(str(at), {"cosine": row}) for at, row in enumerate(rows)])

    best = [answers(store, Near("cosine", row), limit=1)[0][1] for row in rows]
    assert max(best) == 1.0
    assert min(best) == pytest.approx(1.0, abs=1e-15)


def test_every_write_is_seen_by_the_next_search():
    """Flattened fields are not reused after an upsert or a delete."""
    store = fresh()
    leg = Near("dot", array(1, 0, 0))
    seen = []
    for write in (
        lambda: store.upsert([Record("a", {"dot": array(1, 0, 0)})]),
        lambda: store.upsert([Record("b", {"dot": array(2, 0, 0)})]),
        lambda: store.upsert([Record("a", {"dot": array(3, 0, 0)})]),
        lambda: store.delete(["b"]),
    ):
        write()
        seen.append(answers(store, leg))

    assert seen == [[("a", 1.0)], [("b", 2.0), ("a", 1.0)], [("a", 3.0), ("b", 2.0)], [("a", 3.0)]]


def test_text_scores_are_bm25_with_rarity_over_all_records():
    """Score = sum of idf * tf part; idf counts records with the word among all records, those without text included."""
    store = fresh()
    bodies = {"a": "red fish blue fish", "b": "one red fish", "c": "two", "d": None}
    store.upsert([Record(key, {}, {"body": body}) for key, body in bodies.items()])

    def part(tf, length):
        return tf * 2.2 / (tf + 1.2 * (1 - 0.75 + 0.75 * length / bm25.AVERAGE_LENGTH))

    rare, common = math.log((4 - 1 + 0.5) / 1.5 + 1), math.log((4 - 2 + 0.5) / 2.5 + 1)
    assert dict(answers(store, Match("text", "Blue FISH"))) == pytest.approx(
        {"a": rare * part(1, 4) + common * part(2, 4), "b": common * part(1, 3)}, rel=1e-6
    )
    assert answers(store, Match("text", "absent")) == []


def test_ties_go_by_id_and_pages_follow_each_other():
    """Equal scores are sorted by id, by code points; limit and offset cut the sorted list."""
    store = fresh()
    names = ["b", "a", "Z", "é", "10", "9"]
    store.upsert([Record(name, {"dot": array(1, 0, 0)}) for name in names])
    leg = Near("dot", array(1, 0, 0))

    assert [key for key, _ in answers(store, leg)] == ["10", "9", "Z", "a", "b", "é"]
    assert [key for key, _ in answers(store, leg, limit=2, offset=3)] == ["a", "b"]
    assert answers(store, leg, offset=6) == []


def test_filter_comes_before_the_cut():
    """A filtered page is full while enough records match."""
    store = fresh()
    store.upsert([Record(f"{at:02}", {"dot": array(at, 0, 0)}, {"i": at % 5}) for at in range(30)])

    assert [key for key, _ in answers(store, Near("dot", array(1, 0, 0)), where=Eq("i", 0), limit=4)] == [
        "25",
        "20",
        "15",
        "10",
    ]


def test_upsert_replaces_whole_records():
    """Neither vectors nor payload of the earlier record remain."""
    store = fresh()
    store.upsert([Record("a", {"dot": array(1, 2, 3)}, {"x": 1, "body": "old"})])
    store.upsert([Record("a", {}, {"y": 2})])

    (found,) = store.get(["a"])
    assert (found.payload, dict(found.vectors)) == ({"y": 2}, {})
    assert answers(store, Match("text", "old")) == []
    assert answers(store, Near("dot", array(1, 1, 1))) == []


def test_kept_records_are_beyond_the_callers_reach():
    """Changing an argument or a result does not change the stored record."""
    store = fresh()
    vector, payload = array(1, 2, 3), {"nested": {"list": [1]}}
    store.upsert([Record("a", {"dot": vector}, payload)])
    vector[0] = 99
    payload["nested"]["list"].append(2)
    first = store.get(["a"])[0]
    first.payload["nested"]["list"].append(3)
    first.vectors["dot"][1] = 99
    next(store.scan()).payload["more"] = 1
    store.search([SearchRequest(Near("dot", array(1, 0, 0)))])[0][0].payload["nested"]["list"].append(4)

    again = store.get(["a"])[0]
    assert again.payload == {"nested": {"list": [1]}}
    assert again.vectors["dot"].tolist() == [1, 2, 3]


def test_get_keeps_the_order_asked_and_leaves_absent_ids_out():
    """Parts select the contents of a record."""
    store = fresh()
    store.upsert([Record("a", {"dot": array(1, 0, 0)}, {"n": 1}), Record("b", {}, {"n": 2})])

    assert [record.id for record in store.get(["b", "no", "a"])] == ["b", "a"]
    assert store.get(["a"], parts=Parts.PAYLOAD)[0].vectors == {}
    assert store.get(["a"], parts=Parts.VECTORS)[0].payload == {}


def test_scan_and_count_obey_the_filter():
    """Every matching record once, whatever the size of pages."""
    store = fresh()
    store.upsert([Record(str(at), {}, {"i": at}) for at in range(10)])
    where = Range("i", gte=3, lt=8)

    assert sorted(record.id for record in store.scan(where=where, batch=2)) == ["3", "4", "5", "6", "7"]
    assert (store.count(where), store.count()) == (5, 10)


def test_scan_goes_on_while_records_are_written():
    """Unchanged records are returned, others may be."""
    store = fresh()
    store.upsert([Record(str(at), {}, {"i": at}) for at in range(4)])
    scan = store.scan(batch=1)
    seen = [next(scan).id]
    store.upsert([Record("new", {}, {})])
    store.delete(["3"])

    assert {"0", "1", "2"} <= {*seen, *(record.id for record in scan)}


def test_delete_forgets_and_is_silent_about_the_absent():
    """A deleted record is in no result."""
    store = fresh()
    store.upsert([Record("a", {"dot": array(1, 0, 0)}, {"body": "word"}), Record("b")])
    store.delete(["a", "never"])

    assert [record.id for record in store.scan()] == ["b"]
    assert answers(store, Near("dot", array(1, 0, 0))) == answers(store, Match("text", "word")) == []


def test_create_twice_keeps_records_and_another_schema_is_a_mismatch():
    """The message describes the difference."""
    store = fresh()
    store.upsert([Record("a")])
    store.create()
    assert store.count() == 1

    other = MemoryStore(store._key[0], Schema("c", {**FIELDS, "dot": DenseField(4, Metric.DOT)}, KINDS))
    with pytest.raises(SchemaMismatch, match=r"memory create: .*dimension 3, metric dot.*dimension 4"):
        other.create()


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.upsert([]),
        lambda store: store.delete([]),
        lambda store: store.get(["a"]),
        lambda store: store.search([]),
        lambda store: list(store.scan()),
        lambda store: store.count(),
        lambda store: store.refresh(),
    ],
)
def test_nothing_works_before_create_or_after_drop(call):
    """A missing collection raises NotFound; dropping it again is allowed."""
    store = fresh()
    store.drop()
    store.drop()

    with pytest.raises(NotFound, match="'c'"):
        call(store)


def test_one_name_is_one_collection_in_the_process():
    """Opened again, without a schema, it has its schema and records; another name has neither."""
    store = fresh()
    store.upsert([Record("a")])
    address = Address("memory", path=store._key[0])

    again = PLUGIN.connect(address, "c", None, None)
    assert (again.schema, again.count()) == (store.schema, 1)
    assert PLUGIN.collections(address, None) == ["c"]
    with pytest.raises(NotFound, match="other"):
        PLUGIN.connect(address, "other", None, None)


def test_fuse_belongs_above_the_adapter():
    """The message names the layer that splits a hybrid request."""
    with pytest.raises(TypeError, match="fusing"):
        fresh().search([SearchRequest(Fuse((Match("text", "a"),)))])


def test_eight_writers_and_readers_end_with_every_record():
    """Concurrent writes are not lost, and reads return whole records."""
    store = fresh()
    wrong = []

    def write(worker):
        for at in range(20):
            store.upsert([Record(f"{worker}-{at}", {"dot": array(worker, at, 1)}, {"i": at})])

    def read():
        for _ in range(20):
            wrong.extend(
                hit for hit in store.search([SearchRequest(Near("dot", array(0, 0, 1)))])[0] if hit.score != 1.0
            )

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)] + [
        threading.Thread(target=read) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (store.count(), wrong) == (160, [])


TABLE = [
    (Eq("k", "foo"), {"k": "foo"}, True),
    (Eq("k", "foo"), {"k": "foobar"}, False),
    (Eq("k", "foo"), {"k": "FOO"}, False),
    (Eq("k", "foo"), {"k": ["bar", "foo"]}, True),
    (Eq("k", "foo"), {"k": ["foo bar"]}, False),
    (Eq("k", "1"), {"k": "1.0"}, False),
    (Eq("k", "\u00e9"), {"k": "e\u0301"}, False),
    (Eq("k", ""), {"k": ""}, True),
    (Eq("k", "foo"), {}, False),
    (Eq("k", "foo"), {"k": None}, False),
    (Eq("k", "foo"), {"k": []}, False),
    (Not(Eq("k", "foo")), {"k": None}, True),
    (Not(Eq("k", "foo")), {}, True),
    (Eq("i", 1), {"i": 1}, True),
    (Eq("i", 1.0), {"i": 1}, True),
    (Eq("i", 2**53 + 1), {"i": 2**53}, False),
    (Eq("i", 2**63 - 1), {"i": 2**63 - 1}, True),
    (Eq("f", 1), {"f": 1.0}, True),
    (Eq("f", 1.0), {"f": 1}, True),
    (Eq("f", -0.0), {"f": 0.0}, True),
    (Eq("f", 0.1), {"f": 0.1}, True),
    (Eq("b", True), {"b": True}, True),
    (Eq("b", False), {"b": [True, False]}, True),
    (Eq("b", True), {"b": 1}, False),
    (Eq("i", 1), {"i": True}, False),
    (Eq("d", "2020-01-01"), {"d": "2020-01-01T01:00:00+01:00"}, True),
    (Eq("d", "2020-01-01T00:00:00.5Z"), {"d": "2020-01-01 00:00:00.500"}, True),
    (In("k", ("a", "b")), {"k": "b"}, True),
    (In("k", ()), {"k": "b"}, False),
    (In("i", (1, 3)), {"i": [2, 3]}, True),
    (Range("i", gt=1), {"i": 1}, False),
    (Range("i", gte=1, lt=2), {"i": 1}, True),
    (Range("i", gte=2, lte=3), {"i": [1, 4]}, False),
    (And((Range("i", gte=2), Range("i", lte=3))), {"i": [1, 4]}, True),
    (Range("f", gt=0.5), {"f": 1}, True),
    (Range("d", gte="2020-01-01", lt="2021-01-01"), {"d": "2020-12-31T23:59:59-00:30"}, False),
    (Range("d", gte="2020-01-01"), {"d": "not a date"}, False),
    (Range("i", gte="2020-01-01"), {"i": 1}, False),
    (Exists("k"), {"k": ""}, True),
    (Exists("b"), {"b": False}, True),
    (Exists("k"), {"k": None}, False),
    (Exists("k"), {"k": []}, False),
    (Exists("k"), {}, False),
    (And(()), {}, True),
    (Or(()), {}, False),
    (Not(And((Eq("i", 1), Not(Eq("k", "a"))))), {"i": 1, "k": "a"}, True),
    (Or((Eq("i", 1), Eq("k", "a"))), {"i": 2, "k": "a"}, True),
    (Eq("a.b", "x"), {"a": {"b": "x"}}, True),
    (Eq("a.b", "x"), {"a.b": "x"}, True),
    (Eq("a.b", "x"), {"a.b": "y", "a": {"b": "x"}}, False),
    (Eq("a.b", "x"), {"a": [{"b": "y"}, {"b": "x"}]}, True),
]


@pytest.mark.parametrize(("where", "payload", "expected"), TABLE)
def test_truth_table(where, payload, expected):
    """The meaning of each filter, case by case."""
    assert matches(where, payload, {**KINDS, "a.b": FilterKind.KEYWORD}) is expected


def test_dates_of_all_written_forms_are_instants():
    """Without a zone a date is UTC."""
    moment = datetime(2020, 1, 31, 8, 0, tzinfo=UTC)
    for text in (
        "2020-01-31T08:00",
        "2020-01-31 08:00:00",
        "2020-01-31T08:00:00Z",
        "2020-01-31T09:30:00+01:30",
        "2020-01-31T08:00:00.000",
    ):
        assert matches(Range("d", gte=moment.isoformat(), lte=moment.isoformat()), {"d": text}, KINDS), text


class Counted:
    """A converted value that counts how often values of its class are hashed or compared."""

    operations = 0

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        Counted.operations += 1
        return hash(self.value)

    def __eq__(self, other):
        Counted.operations += 1
        return self.value == other.value


MANY: dict[str, Callable[[int], object]] = {
    "k": str,
    "i": int,
    "f": lambda number: number + 0.5,
    "d": lambda number: (datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=number)).isoformat(),
}


@pytest.mark.parametrize("name", MANY)
def test_in_with_many_values_takes_one_look_up_per_record(name, monkeypatch):
    """``In`` hashes each of its values once, and each record's value once: 400 + 200, not 400 x 200 comparisons."""
    value, convert = MANY[name], _matching._convert
    monkeypatch.setattr(_matching, "_convert", lambda *args: Counted(convert(*args)))
    store = fresh()
    store.upsert([Record(f"{at:03}", {"dot": array(1, at, 0)}, {name: value(2 * at)}) for at in range(200)])
    where = In(name, tuple(value(at) for at in range(300)) + tuple(value(at) for at in range(1001, 1101)))
    for call, expected in (
        (lambda: store.count(where), 150),
        (lambda: len(list(store.scan(where=where))), 150),
        (lambda: len(answers(store, Near("dot", array(1, 1, 0)), limit=200, where=where)), 150),
    ):
        Counted.operations = 0
        assert call() == expected
        assert Counted.operations < 3 * (400 + 200)


def test_nan_equals_nothing_not_even_itself():
    """A set finds NaN by its identity; a filter does not."""
    nan = float("nan")
    assert not matches(In("f", (nan, 1.0)), {"f": nan}, KINDS)
    assert matches(In("f", (nan, 1.0)), {"f": 1}, KINDS)


@given(
    st.lists(st.integers(-3, 3) | st.floats(-3, 3) | st.booleans() | st.sampled_from(["1", "2020-01-01"]), max_size=6),
    st.lists(st.integers(-3, 3) | st.floats(-3, 3) | st.booleans() | st.sampled_from(["1", "2020-01-01"]), max_size=3),
    st.sampled_from(sorted(KINDS)),
)
def test_in_is_the_or_of_equalities(values, stored, name):
    """For values of all kinds: ``In(x, (a, b))`` is ``Eq(x, a)`` or ``Eq(x, b)``."""
    expected = any(matches(Eq(name, value), {name: stored}, KINDS) for value in values)
    assert matches(In(name, tuple(values)), {name: stored}, KINDS) is expected
