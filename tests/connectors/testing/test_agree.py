"""The comparisons of the suite accept ties and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from st_connectors.store import Hit, LegHit, Record
from st_connectors.testing.agree import assert_hits_agree, assert_records_agree, same_json, same_vector
from st_core.vectors import SparseVector


def hits(*pairs):
    return [Hit(name, score) for name, score in pairs]


FULL = hits(("a", 0.9), ("b", 0.5), ("c", 0.5), ("d", 0.3), ("e", 0.1))


@pytest.mark.parametrize(
    ("got", "offset", "limit"),
    [
        (FULL, 0, 5),
        (FULL[:2], 0, 2),
        (hits(("a", 0.9), ("c", 0.5)), 0, 2),
        (hits(("a", 0.9), ("c", 0.5 + 1e-8), ("b", 0.5 - 1e-8)), 0, 3),
        (FULL[2:4], 2, 2),
        ([], 5, 3),
        (FULL[4:], 4, 3),
    ],
    ids=["whole", "page", "tie-at-the-cut", "tie-by-noise", "second-page", "past-the-end", "short-last-page"],
)
def test_agreement(got, offset, limit):
    """The expected page agrees, and so does any order within a tie."""
    assert_hits_agree(got, FULL, offset=offset, limit=limit, rtol=1e-6)


@pytest.mark.parametrize(
    "got",
    [
        hits(("a", 0.9)),
        hits(("a", 0.9), ("b", 0.5), ("c", 0.5)),
        hits(("a", 0.9), ("a", 0.9)),
        hits(("a", 0.9), ("x", 0.5)),
        hits(("a", 0.9), ("d", 0.3)),
        hits(("a", 0.9), ("d", 0.5)),
        hits(("a", 0.91), ("b", 0.5)),
        hits(("b", 0.5), ("a", 0.9)),
        [Hit("a", 0.9, {"more": 1}), Hit("b", 0.5)],
        [Hit("a", 0.9, legs=(LegHit(0, "f", 1, 0.9),)), Hit("b", 0.5)],
    ],
    ids=["short", "long", "twice", "unknown", "too-far-down", "made-up-score", "score", "unsorted", "payload", "legs"],
)
def test_disagreement(got):
    """Any other difference raises AssertionError."""
    with pytest.raises(AssertionError):
        assert_hits_agree(got, FULL, offset=0, limit=2, rtol=1e-6)


def test_ties_of_one_score_are_sorted_by_id():
    """Hits with equal reported scores must be sorted by id, even if the oracle has them as a tie."""
    with pytest.raises(AssertionError, match="not sorted"):
        assert_hits_agree(hits(("a", 0.9), ("c", 0.5), ("b", 0.5)), FULL, offset=0, limit=3, rtol=1e-6)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (None, 0),
        ("", None),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([], {}),
        ([1], [1, 1]),
    ],
)
def test_json_values_that_are_equal_in_python_are_distinguished(left, right):
    """Types and the order of keys count."""
    assert not same_json(left, right)
    assert not same_json({"x": [left]}, {"x": [right]})
    assert same_json(left, left)


def test_vectors_are_compared_by_kind_type_and_number():
    """A float64 array differs from a float32 one, and so does a vector that lost a weight."""
    dense = np.array([1, 2, 3], np.float32)
    sparse = SparseVector.from_mapping({1: 1.0, 2: 2.0})

    assert same_vector(dense, dense + np.float32(1e-7), 1e-6)
    assert not same_vector(dense, dense.astype(np.float64), 1e-6)
    assert not same_vector(dense, dense[:2], 1e-6)
    assert not same_vector(dense, dense + np.float32(1e-3), 1e-6)
    assert same_vector(sparse, sparse, 1e-6)
    assert not same_vector(sparse, dense, 1e-6)
    assert not same_vector(sparse, sparse.top(1), 1e-6)


def test_records_are_compared_whole():
    """Records differ by id, payload, names of vectors, and vectors."""
    one = Record("a", {"v": np.array([1, 2], np.float32)}, {"n": 1})
    assert_records_agree([one], [one])
    for other in (
        Record("b", one.vectors, one.payload),
        Record("a", {}, one.payload),
        Record("a", {"w": one.vectors["v"]}, one.payload),
        Record("a", {"v": -one.vectors["v"]}, one.payload),
        Record("a", one.vectors, {"n": 1.0}),
    ):
        with pytest.raises(AssertionError):
            assert_records_agree([other], [one])
