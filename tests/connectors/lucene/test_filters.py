"""Filters as queries."""

from __future__ import annotations

import pytest

from st_connectors._lucene.filters import filter_query
from st_connectors._lucene.layout import AdoptedLayout, OwnLayout
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.schema import FilterKind, Schema

KINDS = {
    "w": FilterKind.KEYWORD,
    "n": FilterKind.INT,
    "x": FilterKind.FLOAT,
    "b": FilterKind.BOOL,
    "d": FilterKind.DATE,
}
OWN = OwnLayout(Schema("c", {}, KINDS))
W, N = {"term": {"filter.w": {"value": "a"}}}, {"term": {"filter.n": {"value": 1}}}
NOTHING = {"match_none": {}}


@pytest.mark.parametrize(
    ("where", "query"),
    [
        (Eq("w", "a"), W),
        (Eq("n", 1.0), N),
        (Eq("b", True), {"term": {"filter.b": {"value": True}}}),
        (Eq("d", "1970-01-01T01:00:00+01:00"), {"term": {"filter.d": {"value": 0}}}),
        (Eq("x", -0.0), {"term": {"filter.x": {"value": 0.0}}}),
        (Eq("n", True), NOTHING),
        (In("w", ("a", "b")), {"terms": {"filter.w": ["a", "b"]}}),
        (In("w", ()), NOTHING),
        (In("n", (1, "one")), N),
        (Range("n", gt=1, lte=5), {"range": {"filter.n": {"gt": 1, "lte": 5}}}),
        (Range("d", gte="no date", lt="1970-01-02"), NOTHING),
        (Range("x", gte=-0.0), {"range": {"filter.x": {"gte": 0.0}}}),
        (Range("d", lt="1970-01-01T00:00:00.000001Z"), {"range": {"filter.d": {"lt": 1}}}),
        (Exists("w"), {"exists": {"field": "filter.w"}}),
        (And(()), {"match_all": {}}),
        (Or(()), NOTHING),
        (And((Eq("w", "a"),)), W),
        (And((Eq("w", "a"), Eq("n", 1))), {"bool": {"filter": [W, N]}}),
        (And((Eq("w", "a"), Not(Eq("n", 1)))), {"bool": {"filter": [W], "must_not": [N]}}),
        (And((Not(Eq("w", "a")), Not(Eq("n", 1)))), {"bool": {"must_not": [W, N]}}),
        (Or((Eq("w", "a"), Eq("n", 1))), {"bool": {"should": [W, N], "minimum_should_match": 1}}),
        (Not(Eq("w", "a")), {"bool": {"must_not": [W]}}),
        (Not(Not(Eq("w", "a"))), W),
        (Not(Or(())), {"bool": {"must_not": [NOTHING]}}),
    ],
)
def test_every_filter_has_its_query(where, query):
    """Conditions query the typed copies; nothing and everything are explicit, because an empty ``bool`` matches all."""
    assert filter_query(where, OWN) == query


def test_trees_of_one_kind_are_flat():
    """Engines nest 20 or 30 levels; a chain of a hundred ands has one."""
    where = Eq("w", "a")
    for _ in range(100):
        where = And((where, Eq("n", 1)))
    assert filter_query(where, OWN) == {"bool": {"filter": [W, *[N] * 100]}}
    where = Range("n", gt=1)
    for _ in range(100):
        where = Or((where, Exists("w")))
    assert len(filter_query(where, OWN)["bool"]["should"]) == 101


def test_equalities_of_one_field_are_one_clause():
    """OpenSearch accepts 1,024 clauses, and 65,536 values in one."""
    where = Or((*(Eq("n", number) for number in range(2_000)), In("n", (7, 9_999)), Eq("w", "a")))
    assert filter_query(where, OWN) == {
        "bool": {"should": [{"terms": {"filter.n": [*range(2_000), 7, 9_999]}}, W], "minimum_should_match": 1}
    }


def test_many_values_are_split_into_several_clauses():
    """One ``terms`` accepts 65,536 values."""
    query = filter_query(In("n", tuple(range(70_000))), OWN)
    parts = [part["terms"]["filter.n"] for part in query["bool"]["should"]]
    assert [len(part) for part in parts] == [65_536, 4_464]
    assert [value for part in parts for value in part] == list(range(70_000))


def test_adopted_fields_have_their_own_paths():
    """Dates stay as written."""
    plain = AdoptedLayout(Schema("theirs", {}, {"a.day": FilterKind.DATE}))
    assert filter_query(Eq("a.day", "2020-01-01"), plain) == {"term": {"a.day": {"value": "2020-01-01"}}}
    with pytest.raises(KeyError):
        filter_query(Eq("b", 1), plain)
