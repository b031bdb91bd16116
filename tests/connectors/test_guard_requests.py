"""Which searches, filters and scans the guard lets through, and in what form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watched import SOME, UNIT, Watched, sent

from st_connectors.errors import Unsupported
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.layers.guard import guarded
from st_connectors.schema import Rrf, Weighted
from st_connectors.store import Candidates, Exact, Fuse, Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SearchRequest(Near("nope", UNIT)), "unknown field 'nope'; the collection has 'cosine'"),
        (SearchRequest(Near("body", UNIT)), "field 'body' is text: search it with Match"),
        (SearchRequest(Match("dot", "x")), "field 'dot' has vectors: search it with Near"),
        (SearchRequest(Match("body", None)), "the text of Match must be a string, not NoneType"),
        (SearchRequest(Match("body", "\ud800")), "half of a surrogate pair"),
        (SearchRequest("body"), "a leg must be Near or Match, not str"),
        (SearchRequest(Near("sparse", SOME), limit=0), "limit must be at least 1, not 0"),
        (SearchRequest(Near("sparse", SOME), limit=-1), "limit must be at least 1"),
        (SearchRequest(Near("sparse", SOME), limit=2.0), "limit must be an integer, not 2.0"),
        (SearchRequest(Near("sparse", SOME), limit=True), "limit must be an integer, not True"),
        (SearchRequest(Near("sparse", SOME), offset=-1), "offset must be at least 0, not -1"),
        (SearchRequest(Near("sparse", SOME), effort=Candidates(0)), "the count of Candidates must be at least 1"),
        (
            SearchRequest(Near("sparse", SOME), effort="exact"),
            "effort must be Exact(), Default() or Candidates(n), not 'exact'",
        ),
        (SearchRequest(Near("sparse", SOME), parts=1), "parts must be of Parts, not 1"),
        (SearchRequest(Fuse(())), "at least one leg"),
        (SearchRequest(Fuse((Near("sparse", SOME),), depth=0)), "depth must be at least 1"),
        (
            SearchRequest(Fuse((Near("sparse", SOME),), depth=10), limit=5, offset=6),
            "offset + limit is 11, beyond depth 10",
        ),
        (SearchRequest(Fuse((Near("nope", UNIT),))), "unknown field 'nope'"),
        (SearchRequest(Fuse((Fuse(()),))), "a leg must be Near or Match, not Fuse"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Rrf(0))), "k of Rrf must be at least 1"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Rrf(60, (1.0, 2.0)))), "2 weights for 1 legs"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((-1.0,)))), "none below 0"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((0.0,)))), "one above it"),
        (SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((float("nan"),)))), "finite"),
        (
            SearchRequest(Fuse((Near("sparse", SOME),), method=Weighted((1.0,), "l2"))),
            "unknown normalisation 'l2' of Weighted; expected 'min_max'",
        ),
        (
            SearchRequest(Fuse((Near("sparse", SOME),), method="rrf")),
            "expected a fusion, Rrf or Weighted of st_connectors.store, not 'rrf'",
        ),
        ("text", "expected a SearchRequest, not str"),
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
            "offset + limit is 11, and this store returns at most 10",
        ),
        (
            SearchRequest(Fuse((Near("sparse", SOME),), 11)),
            {"max_limit": 10},
            "depth is 11, and this store returns at most 10",
        ),
        (
            SearchRequest(Near("sparse", SOME), effort=Candidates(5)),
            {"efforts": frozenset({"default"})},
            "unsupported effort candidates; this store has default",
        ),
        (
            SearchRequest(Near("sparse", SOME), effort=Exact()),
            {"efforts": frozenset({"default"})},
            "unsupported effort exact",
        ),
        (
            SearchRequest(Near("sparse", SparseVector.from_mapping({1: 1.0, 2: 1.0}))),
            {"max_query_terms": 1},
            "2 terms, and this store allows 1: use vector.top(1)",
        ),
        (SearchRequest(Match("body", "x")), {"text": False}, "this store has no text search"),
        (
            SearchRequest(Near("sparse", SOME), where=Not(Exists("i"))),
            {"filters": frozenset({"exists"})},
            "unsupported filter not; this store has exists",
        ),
        (
            SearchRequest(Near("sparse", SOME), where=And((Eq("i", 1),))),
            {"filters": frozenset({"and"})},
            "unsupported filter eq; this store has and",
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
        (Eq("i", np.int64(3)), Eq("i", 3)),
        (In("i", np.array([1, 2])), In("i", (1, 2))),
        (Eq("f", np.float32(0.5)), Eq("f", 0.5)),
        (Eq("b", np.bool_(True)), Eq("b", True)),
        (Eq("k", np.str_("x")), Eq("k", "x")),
        (Range("i", gte=np.int32(2), lt=np.float32(4.5)), Range("i", gte=2, lt=5)),
        (Or((Not(Exists("k")), And(()))), Or((Not(Exists("k")), And(())))),
    ],
)
def test_filter_values_take_the_form_of_their_kind(where, expected):
    """Whole floats on int fields, floats on float fields, dates in UTC.

    Bounds between integers are moved to the next.
    """
    if expected is None:
        with pytest.raises(ValueError, match="is not a date"):
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
    (Eq("k", 1), "field 'k' is of kind keyword: 1 cannot be compared with it"),
    (Eq("i", "1"), "field 'i' is of kind int: '1' cannot be compared with it"),
    (Eq("i", 1.5), "field 'i' is of kind int: 1.5"),
    (Eq("i", True), "field 'i' is of kind int: True"),
    (Eq("i", 2**63), "9223372036854775808 is beyond the 64 bits of field 'i'"),
    (Eq("i", float("inf")), "field 'i' is of kind int: inf"),
    (Eq("f", "x"), "field 'f' is of kind float: 'x'"),
    (Eq("f", True), "field 'f' is of kind float: True"),
    (Eq("f", float("nan")), "field 'f' is of finite numbers"),
    (Eq("f", 10**400), "field 'f' is of finite numbers"),
    (Eq("b", 1), "field 'b' is of kind bool: 1"),
    (Eq("d", "soon"), "'soon' is not a date: write 2020-01-31"),
    (Eq("d", 2020), "field 'd' is of kind date: 2020"),
    (Eq("k", None), "to match null, use Not(Exists('k'))"),
    (Eq("k", "\ud800"), "half of a surrogate pair"),
    (In("k", ("a", 1)), "field 'k' is of kind keyword: 1"),
    (In("k", "ab"), "a tuple of values, not a string"),
    (In("i", 3), "a tuple of values, not 3"),
    (Eq("i", np.datetime64("2020-01-31")), "field 'i' is of kind int"),
    (Range("k", gt="a"), "field 'k' is of kind keyword: Range is for numbers and dates"),
    (Range("b", gt=0), "field 'b' is of kind bool"),
    (Range("i"), "Range('i') has no bound"),
    (Range("i", gt="2020"), "field 'i' is of kind int: '2020'"),
    (Range("f", lt=float("inf")), "field 'f' is of finite numbers"),
    (And((Eq("i", 1), Not(Or((Eq("k", 1),))))), "field 'k' is of kind keyword"),
    ("i = 1", "expected a filter, one of Eq, In, Range, Exists, And, Or, Not; got 'i = 1'"),
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
    with pytest.raises(TypeError, match="parts must be of Parts"):
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
