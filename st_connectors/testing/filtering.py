"""Filters: one hand-written truth table for every store, and random filters compared with the oracle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st_connectors.errors import Refused, Unsupported
from st_connectors.filters import And, Eq, Exists, Filter, FilterValue, In, Not, Or, Range
from st_connectors.schema import FilterKind
from st_connectors.store import Near, Record
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, Pair, dense_records

__all__ = ["Filtering", "trees"]

_NOON = {"noon-utc", "noon-naive", "noon-berlin"}

TRUTH: Mapping[str, tuple[Filter, set[str]]] = {
    "foo": (Eq("word", "foo"), {"foo", "list"}),
    "foobar": (Eq("word", "foobar"), {"foobar"}),
    "with-a-space": (Eq("word", "foo bar"), {"foo bar"}),
    "upper-case": (Eq("word", "FOO"), {"FOO"}),
    "title-case": (Eq("word", "Foo"), set()),
    "padded": (Eq("word", " foo "), {"padded"}),
    "prefix": (Eq("word", "fo"), set()),
    "umlaut": (Eq("word", "\u00fcn\u00ef"), {"umlaut"}),
    "split-umlaut": (Eq("word", "u\u0308ni\u0308"), {"split-umlaut"}),
    "without-umlaut": (Eq("word", "uni"), {"plain-umlaut"}),
    "quotes": (Eq("word", 'it\'s "so" \\ % _ * ? $'), {"quotes"}),
    "wildcard-star": (Eq("word", "foo*"), set()),
    "wildcard-percent": (Eq("word", "foo%"), set()),
    "long": (Eq("word", "x" * 9_000), {"long"}),
    "long-but-one": (Eq("word", "x" * 8_999), set()),
    "empty-text": (Eq("word", ""), {"no-text"}),
    "word-null": (Eq("word", "null"), set()),
    "second-of-list": (Eq("word", "qux"), {"list"}),
    "whole-list": (Eq("word", "foo qux"), set()),
    "in-words": (In("word", ("foo", "FOO", "nothing")), {"foo", "FOO", "list"}),
    "in-one": (In("word", ("foobar",)), {"foobar"}),
    "in-nothing": (In("word", ()), set()),
    "zero": (Eq("whole", 0), {"zero"}),
    "one": (Eq("whole", 1), {"one", "list"}),
    "one-as-float": (Eq("whole", 1.0), {"one", "list"}),
    "minus-one": (Eq("whole", -1), {"minus"}),
    "in-numbers": (In("whole", (2, 9, 77)), {"two", "list"}),
    "big": (Eq("whole", 2**53), {"big"}),
    "big-odd": (Eq("whole", 2**53 + 1), {"big-odd"}),
    "most": (Eq("whole", 2**63 - 1), {"most"}),
    "least": (Eq("whole", -(2**63)), {"least"}),
    "real-one": (Eq("real", 1), {"one"}),
    "real-three": (Eq("real", 3.0), {"whole-real"}),
    "real-tenth": (Eq("real", 0.1), {"tenth"}),
    "real-of-list": (Eq("real", 9.5), {"list"}),
    "real-nearly": (Eq("real", 0.1000001), set()),
    "in-reals": (In("real", (0, 2.5)), {"zero", "two"}),
    "true": (Eq("flag", True), {"one", "list"}),
    "false": (Eq("flag", False), {"zero", "list"}),
    "range-gt": (Range("whole", gt=1), {"two", "list", "big", "big-odd", "most"}),
    "range-gte": (Range("whole", gte=1), {"one", "two", "list", "big", "big-odd", "most"}),
    "range-lt": (Range("whole", lt=0), {"minus", "least"}),
    "range-lte": (Range("whole", lte=0), {"minus", "least", "zero"}),
    "range-both": (Range("whole", gt=0, lt=2), {"one", "list"}),
    "range-between-list-elements": (Range("whole", gt=2, lt=9), set()),
    "range-empty": (Range("whole", gt=5, lt=3), set()),
    "range-float-bounds": (Range("whole", gte=0.5, lte=1.5), {"one", "list"}),
    "range-over-53-bits": (Range("whole", gt=2**53), {"big-odd", "most"}),
    "range-reals": (Range("real", gte=0.1, lt=1.0), {"tenth", "list"}),
    "range-negative": (Range("real", lte=-1.5), {"minus"}),
    "same-instant": (Eq("day", "2020-06-01T12:00:00Z"), _NOON),
    "same-instant-elsewhere": (Eq("day", "2020-06-01T07:00:00-05:00"), _NOON),
    "day-is-midnight": (Eq("day", "2020-06-01"), {"day-only"}),
    "in-days": (In("day", ("2020-06-01T00:00:00Z", "2021-01-01")), {"day-only", "days"}),
    "from-noon": (Range("day", gte="2020-06-01T12:00:00Z"), {*_NOON, "days"}),
    "until-noon": (Range("day", lt="2020-06-01T12:00:00Z"), {"before-noon", "day-only", "old", "days"}),
    "that-noon": (Range("day", gt="2020-06-01T11:59:59.5Z", lte="2020-06-01T14:00:00+02:00"), {*_NOON, "before-noon"}),
    "before-1970": (Range("day", lt="1970-01-01"), {"old"}),
    "between-days-of-list": (Range("day", gt="2019-06-01", lt="2020-05-01"), set()),
    "exists-word": (
        Exists("word"),
        {
            "foo",
            "foobar",
            "foo bar",
            "FOO",
            "padded",
            "umlaut",
            "plain-umlaut",
            "split-umlaut",
            "quotes",
            "long",
            "no-text",
            "list",
        },
    ),
    "exists-flag": (Exists("flag"), {"zero", "one", "list"}),
    "exists-day": (Exists("day"), {*_NOON, "before-noon", "day-only", "old", "days"}),
    "and": (And((Eq("whole", 1), Eq("flag", True))), {"one", "list"}),
    "and-different": (And((Eq("whole", 1), Not(Exists("word")))), {"one"}),
    "or": (Or((Eq("whole", 2), Eq("word", "FOO"))), {"two", "FOO"}),
    "or-of-nothing": (Or(()), set()),
    "not-in-and": (And((Exists("real"), Not(Range("real", gte=0.0)))), {"minus"}),
    "nested": (
        And((Or((Eq("word", "foo"), Eq("word", "FOO"))), Not(And((Exists("whole"), Exists("flag")))))),
        {"foo", "FOO"},
    ),
    "or-of-nots": (And((Exists("flag"), Or((Not(Eq("flag", True)), Not(Eq("flag", False)))))), {"zero", "one"}),
}
"""A filter, and the ids of the records that match it."""

_MANY: Mapping[str, Sequence[FilterValue]] = {
    "word": ["foo", "foobar", *(f"word {at}" for at in range(2_000))],
    "whole": [2**53 + 1, -(2**63), *range(2_000)],
    "real": [at / 10 for at in range(2_000)],
    "day": [f"2020-06-{1 + at // 1440:02}T{at // 60 % 24:02}:{at % 60:02}:00Z" for at in range(2_000)],
}
"""Many values of each kind, of which some are in the records."""


_NESTED_FIELDS: Mapping[str, FilterKind] = {
    "meta.year": FilterKind.INT,
    "meta.tags": FilterKind.KEYWORD,
    "meta.day": FilterKind.DATE,
    "meta.ok": FilterKind.BOOL,
    "authors.name": FilterKind.KEYWORD,
    "a.b.c": FilterKind.FLOAT,
}

_NESTED: Mapping[str, Mapping[str, Any]] = {
    "inside": {"meta": {"year": 1999, "tags": ["x", "y"], "day": "2020-06-01", "ok": True}},
    "key": {"meta.year": 1999, "meta.tags": ["y"]},
    "key-and-inside": {"meta.year": 2000, "meta": {"year": 1999, "ok": False}},
    "key-of-null": {"meta.year": None, "meta": {"year": 1999}},
    "list-of-objects": {"authors": [{"name": "Ann"}, {"name": ["Bob", "Cy"]}, {"age": 3}, {"name": None}, "Dan"]},
    "deep": {"a": {"b": {"c": 0.5}}},
    "deep-behind-a-key": {"a.b": {"c": 0.5}, "a": {"x": 1}},
    "deep-key": {"a": {"b.c": 2.5}},
    "null-inside": {"meta": {"year": None, "tags": []}, "authors": []},
    "no-object": {"meta": 3, "authors": "Ann", "a": {"b": 4}},
    "nothing": {},
}

NESTED_TRUTH: Mapping[str, tuple[Filter, set[str]]] = {
    "year": (Eq("meta.year", 1999), {"inside", "key"}),
    "the-key-precedes": (Eq("meta.year", 2000), {"key-and-inside"}),
    "years": (Range("meta.year", gte=1999), {"inside", "key", "key-and-inside"}),
    "tag-in-list": (Eq("meta.tags", "y"), {"inside", "key"}),
    "day": (Range("meta.day", gte="2020-06-01T00:00:00Z", lt="2020-06-02"), {"inside"}),
    "true": (Eq("meta.ok", True), {"inside"}),
    "in-one-object-of-a-list": (Eq("authors.name", "Ann"), {"list-of-objects"}),
    "in-a-list-of-one-object": (In("authors.name", ("Cy", "Dan")), {"list-of-objects"}),
    "not-in-a-list": (Eq("authors.name", "Dan"), set()),
    "deep": (Eq("a.b.c", 0.5), {"deep", "deep-behind-a-key"}),
    "deep-key": (Eq("a.b.c", 2.5), {"deep-key"}),
    "exists": (Exists("meta.year"), {"inside", "key", "key-and-inside"}),
    "exists-in-list": (Exists("authors.name"), {"list-of-objects"}),
    "and": (And((Eq("meta.year", 1999), Eq("meta.tags", "x"))), {"inside"}),
}
"""A filter on fields inside objects, and the ids of the records that match it."""


class Filtering(Group):
    """Payload filters in count, scan and search."""

    def _probes(self, lab: Lab) -> Pair:
        lab.need(bool(lab.capabilities.filters), "filters")
        return lab.keep("probes", lambda: lab.pair(lab.schema(filterable=corpus.FILTERABLE), corpus.probes()))

    @pytest.mark.parametrize("case", list(TRUTH))
    def test_truth_table(self, lab: Lab, case: str) -> None:
        """Each filter matches exactly the records of the table; its ``Not`` matches all other records."""
        pair, (where, wanted) = self._probes(lab), TRUTH[case]
        everything = {record.id for record in corpus.probes()}

        assert {record.id for record in pair.store.scan(where=where)} == wanted
        assert {record.id for record in pair.store.scan(where=Not(where))} == everything - wanted
        assert pair.store.count(where) == len(wanted)
        assert pair.store.count(Not(where)) == len(everything) - len(wanted)

    def test_and_of_nothing_lets_everything_through(self, lab: Lab) -> None:
        """``And(())`` matches every record; ``Or(())`` and ``In`` without values match none."""
        pair = self._probes(lab)
        for where in (And(()), Not(Or(())), Not(In("word", ()))):
            pair.assert_records_agree(where)
            assert pair.store.count(where) == len(corpus.probes())

    def test_filters_hold_in_search(self, lab: Lab) -> None:
        """A filtered search ranks exactly the records that match the filter."""
        pair = self._probes(lab)
        leg = Near("dense", corpus.QUERIES[0])
        pair.assert_search_agrees(*(pair.near(leg, where=where, limit=50) for where, _ in TRUTH.values()))

    def test_random_filters_equal_the_oracle(self, lab: Lab) -> None:
        """Any random filter matches the same records as in the oracle."""
        pair = self._probes(lab)

        @settings(
            max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(trees())
        def check(where: Filter) -> None:
            wanted = {record.id for record in pair.oracle.scan(where=where)}
            assert {record.id for record in pair.store.scan(where=where)} == wanted
            assert pair.store.count(where) == len(wanted)
            pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[1]), where=where, limit=5))

        check()

    @pytest.mark.parametrize("name", list(_MANY))
    def test_in_with_two_thousand_values(self, lab: Lab, name: str) -> None:
        """``In`` with many values, in any order and repeated, matches what it matches in the oracle."""
        pair = self._probes(lab)
        values = _MANY[name][: (lab.capabilities.max_filter_values or 2_002) - 2]
        where = In(name, (*values[1::2], *reversed(values[::2]), *values[:2]))
        assert pair.oracle.count(where) > 0
        pair.assert_records_agree(where)
        pair.assert_records_agree(Not(where))
        assert pair.store.count(where) == pair.oracle.count(where)

    def test_more_filter_values_than_declared_are_refused(self, lab: Lab) -> None:
        """If a store limits the values of a filter, a filter with more is refused at once."""
        most = lab.capabilities.max_filter_values
        if most is None:
            pytest.skip("the store declares no limit")
        pair = self._probes(lab)
        with pytest.raises(Unsupported):
            pair.store.count(In("whole", tuple(range(most + 1))))

    def test_a_filter_on_an_undeclared_field_is_refused(self, lab: Lab) -> None:
        """A filter on a field that is not declared as filterable is refused, not silently evaluated."""
        pair = lab.pair(records=dense_records(2))
        for where in (Eq("row", 1), Not(Exists("row")), And((Or((Range("row", gt=0),)),))):
            with pytest.raises((ValueError, Unsupported)):
                pair.store.count(where)
            with pytest.raises((ValueError, Unsupported)):
                list(pair.store.scan(where=where))
            with pytest.raises((ValueError, Unsupported)):
                pair.store.search([pair.near(Near("dense", corpus.QUERIES[0]), where=where)])

    def test_filterable_fields_may_have_any_name(self, lab: Lab) -> None:
        """A field is a payload key, whatever its characters; brackets, quotes and spaces in its name mean nothing.

        A name with dots is a path only in a payload without this key.
        """
        names = [
            "a.b",
            "a",
            "a.b.c",
            "a[]",
            "[0]",
            "x y",
            'it\'s "so"',
            "\\",
            "\u00fcn\u00ef",
            "must",
            "id",
            "_id",
            "$x",
            "key",
            "vector",
        ]
        vectors = corpus.dense_vectors(len(names) + 1)
        pair = lab.pair(lab.schema(filterable=dict.fromkeys(names, FilterKind.INT)))
        pair.upsert([Record(f"r{row}", {"dense": vectors[row]}, {name: row}) for row, name in enumerate(names)])
        pair.upsert([Record("nested", {"dense": vectors[-1]}, {"x": {"y": 1}, "a": 99, "b": {"c": 0}})])

        for row, name in enumerate(names):
            assert [record.id for record in pair.store.scan(where=Eq(name, row))] == [f"r{row}"]
            pair.assert_records_agree(Exists(name))
            pair.assert_records_agree(Not(Range(name, gte=0)))

    @pytest.mark.parametrize("case", list(NESTED_TRUTH))
    def test_a_field_inside_an_object_is_filterable(self, lab: Lab, case: str) -> None:
        """A name with dots is a path through objects and lists of objects, in a payload without this key."""
        pair, (where, wanted) = self._nested(lab), NESTED_TRUTH[case]

        assert {record.id for record in pair.store.scan(where=where)} == wanted
        assert {record.id for record in pair.store.scan(where=Not(where))} == set(_NESTED) - wanted
        assert pair.store.count(where) == len(wanted)
        pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[0]), where=where, limit=20))

    def _nested(self, lab: Lab) -> Pair:
        lab.need(bool(lab.capabilities.filters), "filters")
        dense = corpus.dense_vectors(len(_NESTED), seed=29)
        records = [Record(name, {"dense": dense[row]}, each) for row, (name, each) in enumerate(_NESTED.items())]
        return lab.keep("nested", lambda: lab.pair(lab.schema(filterable=_NESTED_FIELDS), records))

    def test_a_value_of_another_kind_inside_an_object_is_refused(self, lab: Lab) -> None:
        """It is never stored and then matched by nothing; the other records are stored."""
        lab.need(bool(lab.capabilities.filters), "filters")
        pair = lab.pair(lab.schema(filterable=_NESTED_FIELDS))
        dense = corpus.dense_vectors(4, seed=29)
        wrong: list[Mapping[str, Any]] = [
            {"meta": {"year": "1999"}},
            {"meta": [{"year": 1999}, {"year": [2000, 2.5]}]},
            {"authors": [{"name": {"first": "Ann"}}]},
        ]
        records = [Record(f"r{row}", {"dense": dense[row]}, each) for row, each in enumerate([*wrong, {"meta": {}}])]

        rejected = pair.store.upsert(records)

        assert [(item.position, type(item.error)) for item in rejected] == [(row, Refused) for row in range(3)]
        assert "payload['meta.year'] is filterable as int, and '1999' is not" in str(rejected[0].error)

    def test_fields_that_are_not_filterable_may_hold_anything(self, lab: Lab) -> None:
        """An undeclared payload key may have values of different types in different records."""
        pair = lab.pair()
        kinds: list[Any] = [1, "one", 1.5, [1, "x", None], {"a": {"b": 1}}, True, None, "2020-01-01"]
        pair.upsert(
            [Record(f"r{row}", dense_records(1, start=row)[0].vectors, {"any": kind}) for row, kind in enumerate(kinds)]
        )
        pair.assert_records_agree()

    def test_a_float_without_a_fraction_is_a_whole_number_on_an_int_field(self, lab: Lab) -> None:
        """2020.0, which pandas writes for integers in a column with empty cells, is stored and matched as 2020."""
        pair = lab.pair(lab.schema(filterable={"whole": FilterKind.INT}))
        first, second = dense_records(2)
        pair.upsert([replace(first, payload={"whole": 2020.0}), replace(second, payload={"whole": [2021.0, 3]})])

        assert [record.id for record in pair.store.scan(where=Eq("whole", 2020))] == [first.id]
        assert [record.id for record in pair.store.scan(where=Range("whole", gt=2020))] == [second.id]
        stored = {record.id: json.dumps(record.payload) for record in pair.store.get([first.id, second.id])}
        assert stored == {first.id: '{"whole": 2020}', second.id: '{"whole": [2021, 3]}'}


def _leaves() -> st.SearchStrategy[Filter]:
    words = st.sampled_from(["foo", "foobar", "foo bar", "FOO", "", "qux", "\u00fcn\u00ef", "null", "it's"])
    wholes = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 9, 2**53, 2**53 + 1, 2**63 - 1])
    reals = st.sampled_from([-1.5, 0.0, 0.1, 0.5, 1.0, 2.5, 3.0, 9.5, 1e9])
    days = st.sampled_from(
        ["1970-01-01", "2019-01-01", "2020-06-01", "2020-06-01T12:00:00Z", "2020-06-01T14:00:00+02:00", "2021-01-01"]
    )
    flags = st.booleans()
    fields: list[tuple[str, st.SearchStrategy[Any]]] = [
        ("word", words),
        ("whole", wholes),
        ("real", reals),
        ("day", days),
        ("flag", flags),
    ]
    leaves: list[st.SearchStrategy[Filter]] = [
        st.builds(Exists, st.sampled_from([name for name, _ in fields] + ["tags"]))
    ]
    for name, values in fields:
        leaves.append(st.builds(Eq, st.just(name), values))
        leaves.append(st.builds(In, st.just(name), st.lists(values, max_size=3, unique=True).map(tuple)))
        if name in ("whole", "real", "day"):
            bound = st.none() | values
            bounds = st.fixed_dictionaries({"gt": bound, "gte": bound, "lt": bound, "lte": bound})
            some = bounds.filter(lambda each: any(value is not None for value in each.values()))
            leaves.append(st.builds(_range, st.just(name), some))
    return st.one_of(leaves)


def _range(name: str, bounds: dict[str, Any]) -> Range:
    return Range(name, **bounds)


def trees() -> st.SearchStrategy[Filter]:
    """Return a strategy of random filters on the fields of the truth table, with up to eight conditions."""
    return st.recursive(
        _leaves(),
        lambda parts: st.one_of(
            st.lists(parts, max_size=3).map(lambda each: And(tuple(each))),
            st.lists(parts, max_size=3).map(lambda each: Or(tuple(each))),
            parts.map(Not),
        ),
        max_leaves=8,
    )
