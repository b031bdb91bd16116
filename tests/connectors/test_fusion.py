"""The fusion formulas against a naive transcription of their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.fusion import fuse, rrf, weighted
from st_connectors.schema import Rrf, Weighted

IDS = st.sampled_from("abcdefgh")
RANKINGS = st.lists(st.lists(IDS, unique=True, max_size=6), min_size=1, max_size=4)
LEGS = st.lists(st.dictionaries(IDS, st.floats(-5, 5), max_size=6), min_size=1, max_size=4)
WEIGHTS = st.lists(st.floats(0.1, 5), min_size=4, max_size=4)


def in_order(scores):
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


@given(RANKINGS, st.integers(1, 100), WEIGHTS)
def test_rrf_is_the_sum_of_reciprocal_ranks(rankings, k, weights):
    """Each ranking that holds an id adds weight / (k + rank), ranks from 1."""
    naive = {
        key: sum(
            weight / (k + ranking.index(key) + 1)
            for ranking, weight in zip(rankings, weights, strict=False)
            if key in ranking
        )
        for key in {key for ranking in rankings for key in ranking}
    }

    fused = rrf(rankings, k, weights[: len(rankings)])

    assert dict(fused) == pytest.approx(naive, rel=1e-12)
    assert fused == in_order(dict(fused))


@given(LEGS, WEIGHTS)
def test_weighted_is_the_sum_of_min_max_shares(legs, weights):
    """(score - least) / (most - least) per leg; 1 for each where all are equal; 0 where an id is absent."""
    naive = {}
    for key in {key for leg in legs for key in leg}:
        total = 0.0
        for leg, weight in zip(legs, weights, strict=False):
            if key in leg:
                spread = max(leg.values()) - min(leg.values())
                total += weight * ((leg[key] - min(leg.values())) / spread if spread else 1.0)
        naive[key] = total

    fused = weighted(legs, weights[: len(legs)])

    assert dict(fused) == pytest.approx(naive, rel=1e-12)
    assert fused == in_order(dict(fused))


def test_textbook_values():
    """K = 60: first in both rankings gives 2 / 61."""
    assert rrf([["a", "b"], ["a", "c"]]) == [("a", 2 / 61), ("b", 1 / 62), ("c", 1 / 62)]


def test_equal_scores_go_by_id():
    """The order of rankings does not decide ties."""
    assert rrf([["b"], ["a"]]) == rrf([["a"], ["b"]]) == [("a", 1 / 61), ("b", 1 / 61)]


def test_a_repeated_id_counts_where_it_first_stands():
    """A ranking is made of distinct ids; a later copy neither adds nor moves the others down."""
    assert rrf([["a", "a", "b"]]) == rrf([["a", "b"]])


def test_a_single_candidate_has_the_whole_share():
    """Min-max of one score, or of equal scores, is 1."""
    assert weighted([{"a": -3.0}, {"b": 2.0, "c": 2.0}], [0.25, 0.75]) == [("b", 0.75), ("c", 0.75), ("a", 0.25)]


def test_a_leg_of_weight_zero_takes_no_part():
    """What only that leg found is not in the result."""
    assert rrf([["a"], ["b"]], 60, [1.0, 0.0]) == [("a", 1 / 61)]
    assert weighted([{"a": 1.0}, {"b": 1.0}], [1.0, 0.0]) == [("a", 1.0)]


def test_empty_legs_add_nothing():
    """A part without hits leaves the others as they are."""
    assert rrf([[], ["a"]]) == [("a", 1 / 61)]
    assert weighted([{}, {"a": 1.0}], [1.0, 1.0]) == [("a", 1.0)]


@pytest.mark.parametrize("call", [lambda: rrf([["a"]], 60, [1.0, 1.0]), lambda: weighted([{"a": 1.0}], [])])
def test_another_number_of_weights_is_refused(call):
    """One weight per leg."""
    with pytest.raises(ValueError, match="one weight per leg"):
        call()


def test_fuse_takes_ranks_from_the_order_of_a_leg():
    """A leg is given best first; Rrf looks at its order, Weighted at its scores."""
    legs = [{"a": 9.0, "b": 1.0}, {"b": 4.0, "a": 3.0}]
    assert fuse(legs, Rrf(10, (2.0, 1.0))) == rrf([["a", "b"], ["b", "a"]], 10, [2.0, 1.0])
    assert fuse(legs, Weighted((2.0, 1.0))) == [("a", 2.0), ("b", 1.0)]
