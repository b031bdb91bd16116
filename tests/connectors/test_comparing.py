"""Comparisons of searches: the measures by values worked out by hand, and a whole comparison in memory."""

from __future__ import annotations

import math

import pytest

from st_connectors.comparing import SearchComparison, compare_indexes, ndcg, overlap, rank_correlation
from st_connectors.index import Index


@pytest.mark.parametrize(
    ("one", "other", "share", "tau"),
    [
        ("abcd", "abcd", 1.0, 1.0),
        ("abcd", "dcba", 1.0, -1.0),
        ("abcd", "abdc", 1.0, 4 / 6),
        ("abcd", "xbya", 0.5, -1.0),
        ("abcd", "ab", 0.5, 1.0),
        ("abcd", "a", 0.25, None),
        ("abcd", "", 0.0, None),
        ("", "", 1.0, None),
    ],
)
def test_overlap_and_rank_correlation(one, other, share, tau):
    """The share of the longer list; Kendall's tau is the pairs in equal order less those in another, over all."""
    assert overlap(list(one), list(other)) == share
    assert rank_correlation(list(one), list(other)) == (tau if tau is None else pytest.approx(tau))


def test_ndcg_is_the_gain_over_the_best_gain():
    """A gain at rank r counts by 1 / log2(r + 1); the best order has the greatest gains first, up to the limit."""
    gains = {"a": 2.0, "b": 1.0, "c": 0.0, "d": -1.0}
    assert ndcg(["a", "b"], gains, 10) == 1.0
    assert ndcg(["b", "x", "a"], gains, 10) == pytest.approx((1 + 2 / 2) / (2 + 1 / math.log2(3)))
    assert ndcg(["d", "b"], gains, 10) == pytest.approx((1 / math.log2(3)) / (2 + 1 / math.log2(3)))
    assert ndcg(["b", "a"], gains, 1) == 0.5
    assert ndcg(["x"], gains, 10) == 0.0


class Replacing:
    """The vectors of the letters of a text in which b replaces a."""

    name = "replacing"

    def __init__(self, letters):
        self._letters = letters

    def encode_document(self, inputs, /):
        return self._letters.encode_document([text.replace("a", "b") for text in inputs])

    encode_query = encode_document


def test_a_comparison_is_that_of_the_two_searches(request, letters):
    """The means over the queries of what each index returns; queries without judgements count for the overlap only."""
    texts = {"1": "ab", "2": "aab", "3": "bbc", "4": "ccc"}
    indexes = []
    for name, model in (("one", letters), ("two", Replacing(letters))):
        index = Index.create(f"memory:{request.node.name}", collection=name, dense=model)
        request.addfinalizer(index.drop)
        index.ingest({"id": key, "text": text} for key, text in texts.items())
        indexes.append(index)
    queries = {"q1": "aa", "q2": "c"}
    judgements = {"q1": {"2": 1.0}, "q3": {"1": 1.0}}
    hits = {name: [[hit.id for hit in index.search(name, limit=2).hits] for index in indexes] for name in ("aa", "c")}

    found = compare_indexes(*indexes, queries, judgements, limit=2)

    assert hits["aa"][0] == ["2", "1"]
    assert (found.queries, found.judged) == (2, 1)
    assert found.overlap == sum(len(set(one) & set(two)) / 2 for one, two in hits.values()) / 2
    assert found.ndcg == (1.0, pytest.approx(ndcg(hits["aa"][1], judgements["q1"], 2)))
    assert min(found.milliseconds) > 0
    with pytest.raises(ValueError, match="there is no query to compare by"):
        compare_indexes(*indexes, {}, {})


def test_the_table_names_what_is_unknown():
    """Without common hits there is no correlation, without judgements no quality."""
    lines = str(SearchComparison(3, 10, 0.0, None, (1.0, 2.0))).splitlines()
    assert lines == [
        "overlap at 10           0.000",
        "rank correlation        unknown",
        "milliseconds per query  1.0 before, 2.0 after",
    ]
