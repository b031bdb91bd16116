"""The bodies sent to Qdrant, compared with expected values, and the conversion of results."""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.qdrant import wire
from st_connectors.qdrant.filters import filter_to_qdrant
from st_connectors.qdrant.layout import NAMESPACE, AdoptedLayout, OwnLayout
from st_connectors.schema import (
    DenseField,
    FilterKind,
    Metric,
    Quantization,
    Rrf,
    Schema,
    SparseField,
    TextField,
    Weighted,
)
from st_connectors.store import Candidates, Default, Exact, Fuse, Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema(
    "books",
    {
        "dense": DenseField(2),
        "far": DenseField(2, Metric.EUCLIDEAN, Quantization.INT8),
        "bits": DenseField(2, Metric.DOT, Quantization.BINARY),
        "sparse": SparseField(),
        "words": TextField(),
    },
    {
        "year": FilterKind.INT,
        "price": FilterKind.FLOAT,
        "tag": FilterKind.KEYWORD,
        "new": FilterKind.BOOL,
        "day": FilterKind.DATE,
        "a b.c": FilterKind.KEYWORD,
    },
)
OWN = OwnLayout(SCHEMA)
QUERY = np.array([0.6, 0.8], np.float32)
UUID_OF_A = "b41ae9e8-aa42-5ede-87bb-3e04d093f782"
NEVER = {"must": [{"has_id": []}]}


def body(rank, **options):
    return wire.to_query_body(SCHEMA, OWN, SearchRequest(rank, **options))


def test_a_collection_is_made_with_named_vectors_and_its_schema_as_metadata():
    """Dense fields have size and distance, text fields the idf modifier; the schema is stored with them."""
    assert wire.to_collection_body(SCHEMA) == {
        "vectors": {
            "dense": {"size": 2, "distance": "Cosine"},
            "far": {
                "size": 2,
                "distance": "Euclid",
                "quantization_config": {"scalar": {"type": "int8", "always_ram": True}},
            },
            "bits": {"size": 2, "distance": "Dot", "quantization_config": {"binary": {"always_ram": True}}},
        },
        "sparse_vectors": {"sparse": {}, "words": {"modifier": "idf"}},
        "metadata": {"st_connectors": SCHEMA.to_json()},
    }


def test_the_metadata_gives_the_schema_back_after_json():
    """A collection can be reopened by its name alone."""
    stored = json.loads(json.dumps(wire.to_collection_body(SCHEMA)["metadata"]))

    assert Schema.from_json(stored[wire.METADATA]) == SCHEMA


def test_a_record_becomes_a_point_with_everything_of_ours_hidden():
    """The id is derived and stored, the payload is one JSON string, and filterable values are typed copies."""
    payload = {
        "year": [1999, 2001.0, None, "x"],
        "price": 3,
        "tag": "A",
        "new": True,
        "day": "2020-01-31T08:00:00+01:00",
        "z": 1.0,
    }
    point = wire.to_point(
        SCHEMA,
        OWN,
        Record("a", {"dense": QUERY, "sparse": SparseVector.from_mapping({7: 0.5, 3: 2.0})}, payload),
    )

    assert point == {
        "id": UUID_OF_A,
        "vector": {
            "dense": [0.6000000238418579, 0.800000011920929],
            "sparse": {"indices": [3, 7], "values": [2.0, 0.5]},
        },
        "payload": {
            "_st_id": "a",
            "_st_payload": json.dumps(payload, separators=(",", ":")),
            "_st_f_year": [1999, 2001],
            "_st_f_price": 3.0,
            "_st_f_tag": "A",
            "_st_f_new": "true",
            "_st_f_day": "2020-01-31T07:00:00.000000Z",
            "_st_present": ["year", "price", "tag", "new", "day"],
        },
    }
    assert [type(value) for value in point["payload"]["_st_f_year"]] == [int, int]


@given(st.text(max_size=30))
def test_ids_are_the_uuids_of_version_5_of_the_standard_library(record_id):
    """Every version derives the same ids."""
    assert OWN.point_id(record_id) == str(uuid.uuid5(NAMESPACE, record_id))


def test_single_values_stand_by_themselves():
    """Qdrant's filters treat them like a list of one; missing fields are absent from the presence key."""
    for value, kept in (("A", "A"), (["A"], "A"), (["A", "B"], ["A", "B"])):
        assert OWN.to_payload("a", {"tag": value})["_st_f_tag"] == kept
    assert OWN.to_payload("a", {"tag": "A"})["_st_present"] == "tag"
    assert OWN.to_payload("a", {"tag": []}).keys() == {"_st_id", "_st_payload"}


def test_text_becomes_word_weights_and_nothing_where_there_are_no_words():
    """The weights are BM25's without rarity; an empty text has no vector."""
    point = wire.to_point(SCHEMA, OWN, Record("a", {}, {"text": "kettle kettle"}))
    blank = wire.to_point(SCHEMA, OWN, Record("a", {"sparse": SparseVector.from_mapping({})}, {"text": " … "}))

    tf, length = 2, 2
    weight = tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / 150))
    assert point["vector"]["words"]["values"] == [pytest.approx(weight, rel=1e-6)]
    assert blank["vector"] == {}


def test_field_names_of_any_spelling_have_keys_of_their_own():
    """Qdrant would read dots and brackets as paths."""
    keys = [OWN.key(name) for name in ("a b.c", "a_b_c", "a-20-b", "a[0]", 'a"b', "ä", "")]

    assert keys[0] == "_st_f_a-20-b-2e-c"
    assert len(set(keys)) == len(keys)


def test_a_dense_search():
    """Payload and vectors are requested by parts; the offset is cut here, so that ties can be sorted."""
    assert body(Near("dense", QUERY), limit=5, offset=2, where=Eq("year", 2001)) == {
        "query": [0.6000000238418579, 0.800000011920929],
        "using": "dense",
        "filter": {"must": [{"key": "_st_f_year", "match": {"value": 2001}}]},
        "limit": 7,
        "with_payload": ["_st_id", "_st_payload"],
        "with_vector": False,
    }


def test_parts_say_what_is_fetched():
    """Without payload only the id is requested; word weights never are."""
    got = body(Near("dense", QUERY), parts=Parts.VECTORS)

    assert got["with_payload"] == ["_st_id"]
    assert got["with_vector"] == ["dense", "far", "bits", "sparse"]


@pytest.mark.parametrize(
    ("field", "effort", "params"),
    [
        ("dense", Default(), None),
        ("dense", Exact(), {"exact": True, "quantization": {"ignore": True}}),
        ("dense", Candidates(64), {"hnsw_ef": 64}),
        ("bits", Default(), {"quantization": {"rescore": True, "oversampling": 3.0}}),
        ("bits", Candidates(64), {"hnsw_ef": 64, "quantization": {"rescore": True, "oversampling": 3.0}}),
        ("bits", Exact(), {"exact": True, "quantization": {"ignore": True}}),
    ],
)
def test_effort_is_said_in_qdrants_parameters(field, effort, params):
    """Exact bypasses index and quantization."""
    assert body(Near(field, QUERY), effort=effort).get("params") == params


def test_a_sparse_search_takes_no_parameters():
    """The sparse index is exact whatever the effort."""
    got = body(Near("sparse", SparseVector.from_mapping({1: 0.5})), effort=Exact(), limit=1)

    assert got == {
        "query": {"indices": [1], "values": [0.5]},
        "using": "sparse",
        "limit": 1,
        "with_payload": ["_st_id", "_st_payload"],
        "with_vector": False,
    }


def test_what_can_match_nothing_is_not_sent():
    """An empty sparse vector and a text without words have no hits."""
    assert body(Near("sparse", SparseVector.from_mapping({}))) is None
    assert body(Match("words", "…")) is None
    assert body(Fuse((Match("words", "…"), Near("sparse", SparseVector.from_mapping({}))))) is None


def test_fusion_repeats_the_filter_and_counts_from_zero():
    """The k of 60 is 61 in Qdrant, and each leg has its own filter and depth."""
    got = body(
        Fuse((Near("dense", QUERY), Match("words", "kettle")), depth=50, method=Rrf(60)), limit=3, where=Exists("tag")
    )

    where = {"must": [{"key": "_st_present", "match": {"value": "tag"}}]}
    assert got["query"] == {"rrf": {"k": 61}}
    assert [(leg["using"], leg["limit"], leg["filter"]) for leg in got["prefetch"]] == [
        ("dense", 50, where),
        ("words", 50, where),
    ]
    assert "filter" not in got
    assert got["limit"] == 3


@pytest.mark.parametrize("method", [Rrf(60, (1.0, 0.5)), Weighted((0.5, 0.5))])
def test_fusions_that_mean_something_else_here_are_refused(method):
    """Qdrant's weights reverse the ranking at large k, and it has no min-max."""
    with pytest.raises(ValueError, match="unweighted"):
        body(Fuse((Near("dense", QUERY), Match("words", "kettle")), method=method))


YEAR = "_st_f_year"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Eq("year", 2001), {"must": [{"key": YEAR, "match": {"value": 2001}}]}),
        (Eq("year", 2001.0), {"must": [{"key": YEAR, "match": {"value": 2001}}]}),
        (Eq("year", 2001.5), NEVER),
        (Eq("year", True), NEVER),
        (Eq("year", "2001"), NEVER),
        (Eq("new", True), {"must": [{"key": "_st_f_new", "match": {"value": "true"}}]}),
        (Eq("new", 1), NEVER),
        (Eq("price", 1), {"must": [{"key": "_st_f_price", "range": {"gte": 1.0, "lte": 1.0}}]}),
        (
            Eq("day", "2020-01-31T08:00:00+01:00"),
            {
                "must": [
                    {
                        "key": "_st_f_day",
                        "range": {"gte": "2020-01-31T07:00:00.000000Z", "lte": "2020-01-31T07:00:00.000000Z"},
                    }
                ]
            },
        ),
        (In("tag", ("a", "b")), {"must": [{"key": "_st_f_tag", "match": {"any": ["a", "b"]}}]}),
        (In("tag", ("a",)), {"must": [{"key": "_st_f_tag", "match": {"value": "a"}}]}),
        (In("tag", ()), NEVER),
        (
            In("price", (1, 2.5)),
            {
                "should": [
                    {"key": "_st_f_price", "range": {"gte": 1.0, "lte": 1.0}},
                    {"key": "_st_f_price", "range": {"gte": 2.5, "lte": 2.5}},
                ]
            },
        ),
        (And(()), {"must": []}),
        (Or(()), NEVER),
        (Not(Or(())), {"must_not": [NEVER]}),
        (
            Not(And((Eq("tag", "a"), Exists("day")))),
            {
                "must_not": [
                    {
                        "must": [
                            {"key": "_st_f_tag", "match": {"value": "a"}},
                            {"key": "_st_present", "match": {"value": "day"}},
                        ]
                    }
                ]
            },
        ),
        (Range("year", gt=1.5, lt=4), {"must": [{"key": YEAR, "range": {"gte": 2.0, "lte": 3.0}}]}),
        (Range("year", gt=3, lt=4), NEVER),
        (Range("price", gt=1, lte=2.5), {"must": [{"key": "_st_f_price", "range": {"gt": 1.0, "lte": 2.5}}]}),
        (
            Range("day", gte="2020-01-01"),
            {"must": [{"key": "_st_f_day", "range": {"gte": "2020-01-01T00:00:00.000000Z"}}]},
        ),
    ],
)
def test_filters(where, expected):
    """Each filter class, for each declared kind."""
    assert filter_to_qdrant(where, OWN) == expected


def passes(body, values, count):
    """Whether a list of values passes a filter body, evaluated as Qdrant does; ``count`` counts compared ranges."""
    if "range" in body:
        count.append(body)
        return any(body["range"]["gte"] <= value <= body["range"]["lte"] for value in values)
    every = all(passes(part, values, count) for part in body.get("must", ()))
    return every and ("should" not in body or any(passes(part, values, count) for part in body["should"]))


@pytest.mark.parametrize(
    ("field", "written", "value"),
    [
        ("price", lambda number: number / 4, float),
        ("day", lambda number: f"{1000 + number // 4:04}-06-01T12:00:{number % 4 * 15:02}.000000Z", str),
    ],
)
def test_in_with_many_values_compares_a_record_with_few_ranges(field, written, value):
    """Floats and dates, which Qdrant only compares by ranges: a tree of them, and not 30,000 one after the other."""
    listed = [2 * number for number in range(15_000)]
    body = filter_to_qdrant(In(field, tuple(written(number) for number in reversed(listed)) * 2), OWN)

    for numbers, expected in (([0], True), ([29_998], True), ([1], False), ([31_000], False), ([3, 7, 9_000], True)):
        count = []
        assert passes(body, [value(written(number)) for number in numbers], count) is expected
        assert len(count) <= 200


def test_bounds_between_two_floats_are_exact():
    """Qdrant's bounds are float64; integers beyond 2**53 between two of them are listed one by one."""
    low, high = 2**60 + 255, 2**61 + 2
    got = filter_to_qdrant(Range("year", gte=low, lte=high), OWN)

    inside, edges = got["should"]
    assert inside == {"key": YEAR, "range": {"gte": float(2**60 + 256), "lte": float(2**61)}}
    assert edges == {"key": YEAR, "match": {"any": [2**60 + 255, 2**61 + 1, 2**61 + 2]}}


def test_plain_payload_keys_are_filtered_by_their_values_own_type():
    """In adopted collections field names are paths, booleans stay booleans, and Qdrant tests emptiness."""
    where = And((Eq("meta.new", True), Eq("n", 2), Eq("x", 0.5), Range("at", lt="2020-01-01"), Exists("tag")))

    assert filter_to_qdrant(where) == {
        "must": [
            {"key": "meta.new", "match": {"value": True}},
            {"key": "n", "match": {"value": 2}},
            {"key": "x", "range": {"gte": 0.5, "lte": 0.5}},
            {"key": "at", "range": {"lt": "2020-01-01T00:00:00.000000Z"}},
            {"must_not": [{"is_empty": {"key": "tag"}}]},
        ]
    }


def answer(name, score, **payload):
    return SimpleNamespace(id=name, score=score, payload=payload, vector=None)


def test_hits_are_ordered_and_then_cut():
    """Ties are sorted by id; Euclidean distances change their sign."""
    found = [answer("u1", 1.5, _st_id="c"), answer("u2", 1.5, _st_id="a"), answer("u3", 2.0, _st_id="b")]
    request = SearchRequest(Near("far", QUERY), limit=2, offset=1, parts=Parts.NONE)

    hits = wire.to_hits(SCHEMA, OWN, request, found)

    assert [(hit.id, hit.score, hit.payload) for hit in hits] == [("c", -1.5, {}), ("b", -2.0, {})]


def test_a_record_is_read_back_as_it_was_given():
    """Payloads keep values and types, vectors are normalised, and derived fields are left out."""
    given = Record(
        "a",
        {"dense": QUERY, "sparse": SparseVector.from_mapping({3: 2.0})},
        {"one": 1.0, "text": "kettle", "b": {"z": None, "a": [1]}},
    )
    point = wire.to_point(SCHEMA, OWN, given)
    vector = {
        name: SimpleNamespace(**value) if isinstance(value, dict) else value for name, value in point["vector"].items()
    }

    read = wire.to_record(SCHEMA, OWN, SimpleNamespace(id=point["id"], payload=point["payload"], vector=vector))

    assert read.id == "a"
    assert json.dumps(read.payload) == json.dumps(given.payload)
    assert list(read.vectors) == ["dense", "sparse"]
    np.testing.assert_array_equal(read.vectors["dense"], QUERY)
    assert read.vectors["sparse"] == given.vectors["sparse"]


def test_a_point_of_somebody_else_in_our_collection_is_shown_by_its_own_id():
    """It has no id key, and must not stop a scan."""
    read = wire.to_record(SCHEMA, OWN, SimpleNamespace(id=7, payload={"theirs": 1}, vector=None))

    assert (read.id, read.payload, read.vectors) == ("7", {}, {})


@pytest.mark.parametrize(
    ("given", "point"),
    [
        ("17", 17),
        ("0", 0),
        (str(2**64 - 1), 2**64 - 1),
        ("12345678-1234-5678-1234-567812345678", "12345678-1234-5678-1234-567812345678"),
        ("ABCDEF00-1234-5678-1234-567812345678", "abcdef00-1234-5678-1234-567812345678"),
        (str(2**64), None),
        ("-1", None),
        ("book 1", None),
        ("٣", None),
    ],
)
def test_ids_of_adopted_collections_are_integers_and_uuids(given, point):
    """Qdrant has no others, and the collection's owner would not know a derived one."""
    assert AdoptedLayout({}).point_id(given) == point


def test_the_schema_of_an_adopted_collection_is_read_from_its_description():
    """Multivectors and vectors of an unknown metric are left out; indexed keys are filterable."""
    description = {
        "vectors": {
            "d": {"size": 3, "distance": "Dot"},
            "m": {"size": 3, "distance": "Manhattan"},
            "c": {"size": 3, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"}},
        },
        "sparse_vectors": {"s": {"modifier": "idf"}},
    }

    got = wire.to_adopted_schema("notes", description, {"n": "integer", "where": "geo"}, {"tag": FilterKind.KEYWORD})

    assert got == Schema(
        "notes",
        {"d": DenseField(3, Metric.DOT), "s": SparseField()},
        {"n": FilterKind.INT, "tag": FilterKind.KEYWORD},
    )


def test_one_nameless_vector_is_a_field_without_a_name():
    """Qdrant itself stores it under an empty name."""
    got = wire.to_adopted_schema("notes", {"vectors": {"size": 2, "distance": "Cosine"}}, {}, {})

    assert got.fields == {"": DenseField(2)}
    assert wire.to_point(got, AdoptedLayout({}), Record("1", {"": QUERY}, {}))["vector"] == [
        0.6000000238418579,
        0.800000011920929,
    ]
