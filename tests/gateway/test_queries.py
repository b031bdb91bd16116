"""The query of the gateway, and the form of its answers."""

from __future__ import annotations

import pytest

pytest.importorskip("h11", reason="needs the extra server")

from st_connectors.gateway.answers import Problem
from st_connectors.gateway.queries import has_query, read_lines, read_search, write_answer
from st_connectors.schema import Rrf, Weighted
from st_connectors.search import SearchHit, SearchResult


def body(**clause: object) -> dict:
    return {"query": {"st_connectors": {"query": "ocean", **clause}}}


def test_all_options_reach_the_search():
    """The fields of the query are the options of ``Index.search``."""
    search = read_search(
        {
            "size": 3,
            "from": 2,
            **body(mode="hybrid", where="year > 1", depth=50, rerank=True, fold=True, min_score=0.5, fusion={"k": 10}),
        }
    )

    assert search is not None
    assert search.text == "ocean"
    assert search.options == {
        "limit": 3,
        "offset": 2,
        "mode": "hybrid",
        "where": "year > 1",
        "depth": 50,
        "rerank": True,
        "fold": True,
        "min_score": 0.5,
        "fusion": Rrf(10),
    }
    weighted = read_search(body(fusion={"method": "weighted", "weights": [0.5, 2]}))
    assert weighted is not None
    assert weighted.options["fusion"] == Weighted((0.5, 2))


@pytest.mark.parametrize("other", [{}, {"query": {"match": {"a": "st_connectors"}}}, [], None, {"query": "x"}])
def test_other_searches_are_not_read(other):
    """A body without the query is none of the gateway."""
    assert read_search(other) is None


def test_bodies_without_the_name_of_the_query_are_not_parsed():
    """The name of the query decides whether a body is parsed at all."""
    assert has_query(b'{"query":{"st_connectors":{}}}')
    assert not has_query(b'{"query":{"match_all":{}}}')


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        ({"query": {"st_connectors": {"query": "a"}, "match": {}}}, "whole query"),
        ({"query": {"st_connectors": "a"}}, "whole query"),
        ({"query": {"st_connectors": {}}}, "needs the field"),
        (body(colour=1), r"no field \[colour\]"),
        (body(depth="x"), "expected int"),
        (body(depth=True), "expected int"),
        (body(rerank=1), "expected bool"),
        (body(mode="fuzzy"), "expected one of dense"),
        (body(fusion={"method": "borda"}), "fusion"),
        (body(fusion={"method": "weighted"}), "fusion"),
        ({**body(), "aggs": {}}, r"\[aggs\] does not work"),
        ({**body(), "size": -1}, "whole number"),
        ({**body(), "from": 1.5}, "whole number"),
        ({**body(), "_source": 7}, "_source"),
    ],
)
def test_malformed_searches_are_refused(search, reason):
    """Each names the field at fault; none reaches the engine."""
    with pytest.raises(Problem, match=reason) as refused:
        read_search(search)
    assert refused.value.status == 400


def test_parameters_that_the_answer_cannot_follow_are_refused():
    """A parameter that would change the answer is refused instead of ignored; size and from are read."""
    with pytest.raises(Problem, match="filter_path"):
        read_search(body(), {"filter_path": "hits"})
    search = read_search(body(), {"size": "4", "from": "1"})
    assert search is not None
    assert search.options == {"limit": 4, "offset": 1}


HITS = (
    SearchHit("b", 0.5, {"text": "sea", "year": 1870, "note": 1}),
    SearchHit("a", float("nan"), {"text": "moon"}),
)


def test_answer_has_the_form_of_the_engine():
    """Clients read total, score, id and source as in any other answer; NaN is null."""
    search = read_search({**body(), "size": 2})
    assert search is not None
    answer = write_answer(search, SearchResult("ocean", HITS), "books", 7)

    assert answer["took"] == 7
    assert answer["hits"]["total"] == {"value": 2, "relation": "gte"}
    assert answer["hits"]["max_score"] == 0.5
    assert answer["hits"]["hits"] == [
        {"_index": "books", "_id": "b", "_score": 0.5, "_source": {"text": "sea", "year": 1870, "note": 1}},
        {"_index": "books", "_id": "a", "_score": None, "_source": {"text": "moon"}},
    ]


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        (True, ["text", "year", "note"]),
        ("year", ["year"]),
        (["te*", "year"], ["text", "year"]),
        ({"excludes": ["note"]}, ["text", "year"]),
        ({"includes": ["*e*"], "excludes": "text"}, ["year", "note"]),
    ],
)
def test_source_is_selected(source, keys):
    """``_source`` selects keys of the payload as the engine does."""
    search = read_search({**body(), "_source": source})
    assert search is not None
    [first, _] = write_answer(search, SearchResult("", HITS), "books", 0)["hits"]["hits"]

    assert list(first["_source"]) == keys


def test_no_source_and_no_hits():
    """Without ``_source`` hits have none, and with size 0 there are no hits but a total."""
    search = read_search({**body(), "_source": False, "size": 0})
    assert search is not None
    answer = write_answer(search, SearchResult("", HITS[:1]), "books", 0)

    assert answer["hits"] == {"total": {"value": 1, "relation": "gte"}, "max_score": None, "hits": []}


def test_lines_of_a_multi_search():
    """A multi-search is pairs of lines; a header without a body is refused."""
    assert read_lines(b"{}\n{1}\n\n{}\n{2}\n") == [(b"{}", b"{1}"), (b"{}", b"{2}")]
    with pytest.raises(Problem, match="no body"):
        read_lines(b"{}\n{}\n{}\n")
