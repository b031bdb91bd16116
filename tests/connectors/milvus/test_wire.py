"""Payloads for pymilvus, compared with expected values, and the conversion of results; without a client."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.milvus import columns, wire
from st_connectors.milvus.filters import Expression, ids_expression, page_after, to_expression, with_literals
from st_connectors.milvus.layout import OwnLayout, StorageOptions
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import Candidates, Exact, Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema(
    "books",
    {
        "dense": DenseField(3, Metric.COSINE),
        "far": DenseField(2, Metric.EUCLIDEAN, optional=False),
        "sparse": SparseField(),
        "body": TextField("text"),
    },
    {
        "tag": FilterKind.KEYWORD,
        "year": FilterKind.INT,
        "read": FilterKind.BOOL,
        "a.b": FilterKind.FLOAT,
        "day": FilterKind.DATE,
    },
)
ARRAYS, PACKED = OwnLayout(SCHEMA, StorageOptions()), OwnLayout(SCHEMA, StorageOptions(packed=True))


def test_odd_names_become_safe_and_stay_apart():
    """Letters, digits and underscores stay; other names are hashed, and no plain name equals a hashed one."""
    assert columns.safe_name("year_2") == "year_2"
    odd = [columns.safe_name(name) for name in ("a.b", "a b", "2nd", "x_a", "ünï", "a" * 300, "")]
    assert len(set(odd)) == 7
    assert all(name.isascii() and name.isidentifier() and name.startswith("x_") and len(name) <= 64 for name in odd)


def test_columns_of_a_collection():
    """Columns for id and payload, vectors with presence if optional, text with its words, and filters."""
    odd = columns.safe_name("a.b")
    assert [(column.name, column.type, column.bm25_source) for column in wire.to_columns(SCHEMA, packed=False)] == [
        ("st_id", "VARCHAR", None),
        ("st_payload", "ARRAY", None),
        ("vec_dense", "FLOAT_VECTOR", None),
        ("has_dense", "BOOL", None),
        ("vec_far", "FLOAT_VECTOR", None),
        ("vec_sparse", "SPARSE_FLOAT_VECTOR", None),
        ("has_sparse", "BOOL", None),
        ("text_body", "VARCHAR", None),
        ("vec_body", "SPARSE_FLOAT_VECTOR", "text_body"),
        ("kw_tag", "ARRAY", None),
        ("lo_year", "INT64", None),
        ("hi_year", "INT64", None),
        ("in_year", "ARRAY", None),
        ("yes_read", "BOOL", None),
        ("no_read", "BOOL", None),
        (f"lo_{odd}", "DOUBLE", None),
        (f"hi_{odd}", "DOUBLE", None),
        (f"in_{odd}", "ARRAY", None),
        ("lo_day", "INT64", None),
        ("hi_day", "INT64", None),
        ("in_day", "ARRAY", None),
    ]


def test_a_collection_without_fields_has_a_vector_that_nobody_searches():
    """Milvus creates no collection without a vector."""
    bare = Schema("bare", {})
    assert wire.to_columns(bare, packed=False)[-1] == wire.Column("vec_st_filler", "FLOAT_VECTOR", {"dim": 2})
    assert wire.vector_indexes(bare, "HNSW") == [wire.Index("vec_st_filler", "FLAT", "L2")]
    assert OwnLayout(bare, StorageOptions(packed=True)).row(Record("a"))["vec_st_filler"] == [0.0, 0.0]


def test_indexes_say_what_2_5_and_3_0_both_take():
    """Explicit types, metrics and parameters."""
    maxscore = {"inverted_index_algo": "DAAT_MAXSCORE"}
    assert wire.vector_indexes(SCHEMA, "HNSW") == [
        wire.Index("vec_dense", "HNSW", "COSINE", {"M": 16, "efConstruction": 200}),
        wire.Index("vec_far", "HNSW", "L2", {"M": 16, "efConstruction": 200}),
        wire.Index("vec_sparse", "SPARSE_INVERTED_INDEX", "IP", maxscore),
        wire.Index("vec_body", "SPARSE_INVERTED_INDEX", "BM25", {**maxscore, "bm25_k1": 1.2, "bm25_b": 0.75}),
    ]
    assert [(index.type, index.params) for index in wire.vector_indexes(SCHEMA, "FLAT")][:2] == [
        ("FLAT", {}),
        ("FLAT", {}),
    ]
    assert {index.type for index in wire.filter_indexes(SCHEMA)} == {"INVERTED"}


def test_a_row_has_every_column():
    """Lite keeps the old value of a column that is left out."""
    row = ARRAYS.row(
        Record(
            "é",
            {"far": np.array([1, 2], np.float32), "sparse": SparseVector.from_mapping({7: 0.5, 2: 1.5})},
            {"text": "Kettle", "tag": ["b", "a"], "year": [3, 1, 2, 2], "a.b": -0.0, "read": False, "day": None},
        ),
    )
    odd = columns.safe_name("a.b")
    assert row == {
        "st_id": "é",
        "st_payload": ['{"text":"Kettle","tag":["b","a"],"year":[3,1,2,2],"a.b":-0.0,"read":false,"day":null}'],
        "vec_dense": [1.0, 1.0, 1.0],
        "has_dense": False,
        "vec_far": [1.0, 2.0],
        "vec_sparse": {2: 1.5, 7: 0.5},
        "has_sparse": True,
        "text_body": "Kettle",
        "kw_tag": ["b", "a"],
        "lo_year": 1,
        "hi_year": 3,
        "in_year": ["8", *("8" + "0" * size for size in range(1, 15)), "8000000000000002"],
        "yes_read": False,
        "no_read": True,
        f"lo_{odd}": 0.0,
        f"hi_{odd}": 0.0,
        f"in_{odd}": [],
        "lo_day": 2**63 - 1,
        "hi_day": -(2**63),
        "in_day": [],
    }
    assert set(row) | {"vec_body"} == {column.name for column in wire.to_columns(SCHEMA, packed=False)}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (Record("a", {}, {}), "the vector of field 'far' is missing"),
        (Record("a", {"far": np.ones(2, np.float32)}, {"text": "é" * 40_000}), "has 80000 bytes"),
        (Record("a", {"far": np.ones(2, np.float32)}, {"tag": "é" * 40_000}), r"payload\['tag'\].* has 80000 bytes"),
        (Record("a", {"far": np.ones(2, np.float32)}, {"tag": ["a"] * 5000}), "more values than the 4096"),
    ],
)
def test_what_milvus_cannot_hold_is_refused_by_name(record, told):
    """Nothing is truncated silently."""
    with pytest.raises(ValueError, match=told):
        ARRAYS.row(record)


@given(st.text(max_size=40), st.integers(0, 60_000))
@settings(max_examples=40, deadline=None)
def test_payloads_are_cut_and_joined_again(text, size):
    """Every piece fits a VARCHAR, counted in bytes, and the payload is unchanged."""
    payload = {"z": text, "a": "é👩" * (size // 2), "n": [1, 1.0, None]}
    pieces = columns.split_payload(payload)
    assert max(len(piece.encode("utf-8", "surrogatepass")) for piece in pieces) <= 65_535
    assert json.dumps(columns.join_payload(pieces)) == json.dumps(payload)


_GOLDEN = {
    "word": (Eq("tag", 'a"\\\n'), 'array_contains(kw_tag, "a\\"\\\\\\n")'),
    "words": (In("tag", ("a", "b")), 'array_contains_any(kw_tag, ["a", "b"])'),
    "no-words": (In("tag", ()), 'st_id == ""'),
    "has-words": (Exists("tag"), "array_length(kw_tag) > 0"),
    "true": (Eq("read", True), "yes_read == true"),
    "either": (In("read", (True, False)), "yes_read == true or no_read == true"),
    "at-least": (Range("year", gte=2020), "hi_year >= 2020"),
    "over": (Range("year", gt=2020), "hi_year >= 2021"),
    "under": (Range("day", lt="1970-01-01"), "lo_day <= -1"),
    "number": (
        Eq("year", 5),
        (
            "(lo_year >= 5 and lo_year <= 5) or (hi_year >= 5 and hi_year <= 5)"
            ' or (lo_year < 5 and hi_year > 5 and (array_contains(in_year, "8000000000000005")))'
        ),
    ),
    "numbers": (
        In("year", (5, -1)),
        (
            "lo_year in [5, -1] or hi_year in [5, -1]"
            ' or array_contains_any(in_year, ["8000000000000005", "7fffffffffffffff"])'
        ),
    ),
    "most": (Eq("year", 2**63 - 1), "hi_year >= 9223372036854775807"),
    "has-number": (Exists("year"), "lo_year < 9223372036854775807 or hi_year > -9223372036854775808"),
    "nowhere": (Range("year", gt=3, lt=4), 'st_id == ""'),
    "beyond": (Range("year", gt=2**63 - 1), 'st_id == ""'),
    "and": (And((Exists("tag"), Eq("read", False))), "(array_length(kw_tag) > 0) and (no_read == true)"),
    "or": (Or((Exists("tag"), Eq("read", False))), "(array_length(kw_tag) > 0) or (no_read == true)"),
    "all": (And(()), 'st_id != ""'),
    "none": (Or(()), 'st_id == ""'),
    "not": (Not(Exists("tag")), "not (array_length(kw_tag) > 0)"),
}


@pytest.mark.parametrize("case", list(_GOLDEN))
def test_filters_become_expressions(case):
    """With their values as quoted literals, for Lite."""
    where, wanted = _GOLDEN[case]
    assert with_literals(to_expression(where, SCHEMA.filterable)) == wanted


_PACKED = {
    "word": (Eq("tag", "a%_|é"), 'kw_tag like "%|61255f7cc3a9|%"'),
    "words": (In("tag", ("a", "b")), 'kw_tag like "%|61|%" or kw_tag like "%|62|%"'),
    "no-words": (In("tag", ()), 'st_id == ""'),
    "has-words": (Exists("tag"), 'kw_tag != ""'),
    "number": (
        Range("year", gte=16, lte=32),
        (
            "(lo_year >= 16 and lo_year <= 32) or (hi_year >= 16 and hi_year <= 32) or (lo_year < 16 and hi_year > 32"
            ' and (in_year like "%|800000000000001%" or in_year like "%|8000000000000020%"))'
        ),
    ),
    "numbers": (
        In("year", (5, -1)),
        (
            "lo_year in [5, -1] or hi_year in [5, -1]"
            ' or in_year like "%|8000000000000005%" or in_year like "%|7fffffffffffffff%"'
        ),
    ),
}


@pytest.mark.parametrize("case", list(_PACKED))
def test_filters_on_lists_kept_as_text(case):
    """Hexadecimal words between bars: no value matches a part of another one or acts as a wildcard."""
    where, wanted = _PACKED[case]
    assert with_literals(to_expression(where, SCHEMA.filterable, packed=True)) == wanted


def test_lists_kept_as_text():
    """Keywords as the hexadecimal of their bytes, and only the numbers between minimum and maximum."""
    given = {"tag": ["b", "é"], "year": [3, 1, 2, 2]}
    row = PACKED.row(Record("a", {"far": np.ones(2, np.float32)}, given))
    assert (row["kw_tag"], row["lo_year"], row["in_year"], row["hi_year"]) == ("|62|c3a9|", 1, "|8000000000000002|", 3)
    assert (row["in_day"], [column.type for column in wire.to_columns(SCHEMA, packed=True)][9]) == ("", "VARCHAR")
    with pytest.raises(ValueError, match="two for each of its own"):
        PACKED.row(Record("a", {"far": np.ones(2, np.float32)}, {"tag": "x" * 33_000}))


def test_values_never_stand_in_the_text_that_servers_get():
    """They are sent as template values."""
    evil = '" or st_id != "'
    made = to_expression(And((Eq("tag", evil), Range("a.b", gte=0.5))), SCHEMA.filterable)
    assert made.text == f"(array_contains(kw_tag, {{p0}})) and (hi_{columns.safe_name('a.b')} >= {{p1}})"
    assert made.values == {"p0": evil, "p1": 0.5}
    assert ids_expression([evil]) == Expression("st_id in {p0}", {"p0": [evil]})
    assert page_after(evil, Expression("yes_read == true")) == Expression(
        "st_id > {last} and (yes_read == true)", {"last": evil}
    )


_NUMBERS = {
    FilterKind.INT: st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5),
    FilterKind.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
}


@pytest.mark.parametrize("kind", list(_NUMBERS))
def test_prefixes_cover_just_the_numbers_of_a_range(kind):
    """A number lies from low to high exactly if its token starts with one of the prefixes."""

    @given(st.tuples(*[_NUMBERS[kind]] * 3), st.lists(_NUMBERS[kind], max_size=4))
    @settings(max_examples=150, deadline=None)
    def check(three, others):
        low, middle, high = sorted(value + 0 for value in three)
        prefixes = columns.covering_prefixes(low, high)
        assert len(prefixes) <= 2 * 15 * 16
        for value in (low, middle, high, *(other + 0 for other in others)):
            token = columns.to_token(value + 0.0 if kind is FilterKind.FLOAT else value)
            assert any(token.startswith(prefix) for prefix in prefixes) == (low <= value <= high)

    check()


def _plan(leg, **options):
    return wire.plan_search(ARRAYS, SearchRequest(leg, **{"limit": 5, "offset": 2, "parts": Parts.NONE, **options}))


def test_searches_of_each_kind():
    """The column, the metric, the candidates, and for optional fields the presence column."""
    dense = _plan(Near("dense", np.array([1, 0, 0], np.float32)), where=Eq("read", True), effort=Candidates(200))
    assert dense == wire.Plan(
        "vec_dense",
        [1.0, 0.0, 0.0],
        {"metric_type": "COSINE", "params": {"ef": 200}},
        7,
        Expression("yes_read == true"),
        ("st_id", "has_dense"),
        "has_dense",
    )
    far = _plan(Near("far", np.array([1, 0], np.float32)), limit=98, effort=Exact())
    assert (far.params, far.where) == ({"metric_type": "L2", "params": {"ef": 100}}, Expression(""))
    assert (far.outputs, far.presence) == (("st_id",), None)
    sparse = _plan(Near("sparse", SparseVector.from_mapping({3: 0.5})), parts=Parts.PAYLOAD)
    assert (sparse.data, sparse.params, sparse.outputs) == (
        {3: 0.5},
        {"metric_type": "IP", "params": {}},
        ("st_id", "st_payload", "has_sparse"),
    )
    assert _plan(Near("dense", np.ones(3, np.float32)), parts=Parts.VECTORS).outputs.count("has_dense") == 1
    assert _plan(Match("body", "a kettle")).data == "a kettle"
    assert _plan(Match("body", " \n")) is None
    assert _plan(Near("sparse", SparseVector.from_mapping({}))) is None


def test_a_search_that_finds_rows_without_the_vector_is_filtered():
    """In addition to its own filter; required fields have no presence column."""
    dense = _plan(Near("dense", np.ones(3, np.float32)), where=Eq("read", True))
    there, lacks = ({"st_id": "a", "distance": 1.0, "entity": {"has_dense": has}} for has in (True, False))
    assert [wire.shows_missing_vector(dense, found) for found in ([], [there], [there, lacks])] == [False, False, True]
    assert not wire.shows_missing_vector(
        _plan(Near("far", np.ones(2, np.float32))), [{"st_id": "a", "distance": 0, "entity": {}}]
    )

    again = wire.require_vector(dense)
    assert (again.where, again.presence) == (Expression("has_dense == true and (yes_read == true)"), None)
    assert wire.require_vector(_plan(Near("dense", np.ones(3, np.float32)))).where == Expression("has_dense == true")


def test_scores_are_unfolded():
    """L2 is returned squared, BM25 by Lite with its sign changed; the page is cut from the sorted list."""

    def ask(leg, *distances, offset=0):
        answers = [
            {"st_id": name, "distance": given, "entity": {}} for name, given in zip("cab", distances, strict=True)
        ]
        return [
            (hit.id, hit.score) for hit in wire.to_hits(ARRAYS, SearchRequest(leg, offset=offset, limit=2), answers)
        ]

    assert ask(Near("far", np.ones(2, np.float32)), 0.0, 2.0, 2.0) == [("c", 0.0), ("a", -math.sqrt(2.0))]
    assert ask(Near("far", np.ones(2, np.float32)), 0.0, 2.0, 2.0, offset=1)[1] == ("b", -math.sqrt(2.0))
    assert ask(Match("body", "x"), -1.5, -2.5, -0.5) == [("a", 2.5), ("c", 1.5)]
    assert ask(Match("body", "x"), 1.5, 2.5, 0.5) == [("a", 2.5), ("c", 1.5)]
    assert ask(Near("dense", np.ones(3, np.float32)), -0.5, 0.5, 0.25) == [("a", 0.5), ("b", 0.25)]


def test_schema_comes_back_from_the_property():
    """With the storage options; a collection without the property was created by someone else."""
    description = {
        "properties": {
            "st_connectors": wire.format_metadata(SCHEMA, StorageOptions("HNSW", packed=True)),
            "timezone": "UTC",
        }
    }
    assert wire.parse_metadata(description) == (SCHEMA, StorageOptions("HNSW", packed=True))
    assert wire.parse_metadata({"properties": {"timezone": "UTC"}}) is None
    assert wire.parse_metadata({}) is None
