"""Compare results number by number, up to ties: scores within the declared relative tolerance of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from st_connectors.store import Hit, Record, Vector
from st_core.vectors import SparseVector

__all__ = ["assert_hits_agree", "assert_records_agree", "same_json", "same_vector"]


def same_json(left: Any, right: Any) -> bool:
    """Return whether two JSON values are identical: 1 is neither 1.0 nor True, and keys are in the same order."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(left) == list(right) and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same_json, left, right))
    return type(left) is type(right) and bool(left == right)


def same_vector(left: Vector, right: Vector, rtol: float) -> bool:
    """Return whether two vectors have the same kind, shape and dtype, and equal values.

    Dense values may differ by ``rtol`` times the largest weight, sparse ones by ``rtol``; sparse indices must be equal.
    """
    if isinstance(left, SparseVector) or isinstance(right, SparseVector):
        return (
            isinstance(left, SparseVector)
            and isinstance(right, SparseVector)
            and np.array_equal(left.indices, right.indices)
            and np.allclose(left.values, right.values, rtol=rtol, atol=0)
        )
    one, two = np.asarray(left), np.asarray(right)
    largest = float(np.abs(two).max(initial=0.0))
    return (
        one.shape == two.shape and one.dtype == two.dtype and bool(np.allclose(one, two, rtol=0, atol=rtol * largest))
    )


def assert_hits_agree(got: Sequence[Hit], full: Sequence[Hit], *, offset: int, limit: int, rtol: float) -> None:
    """Assert that ``got`` is the page ``[offset, offset + limit)`` of ``full``, the expected ranking, up to ties.

    Scores may differ by ``rtol`` times the largest score. The record at each position must have the expected score of
    that position, and the page must be sorted by ``(-score, id)`` of its own scores.
    """
    page = full[offset : offset + limit]
    details = f"\n     got {[(hit.id, hit.score) for hit in got]}\nexpected {[(hit.id, hit.score) for hit in page]}"
    assert len({hit.id for hit in got}) == len(got), f"duplicate ids{details}"
    assert len(got) == len(page), f"expected {len(page)} hits, got {len(got)}{details}"
    expected_by_id = {hit.id: hit for hit in full}
    tolerance = rtol * max((abs(hit.score) for hit in full), default=0.0)
    for hit, at_position in zip(got, page, strict=True):
        assert hit.id in expected_by_id, f"unexpected hit {hit.id!r}{details}"
        expected = expected_by_id[hit.id]
        assert abs(hit.score - expected.score) <= tolerance, (
            f"{hit.id!r}: expected score {expected.score}, got {hit.score}{details}"
        )
        assert abs(expected.score - at_position.score) <= tolerance, (
            f"{hit.id!r} at the position of {at_position.id!r}{details}"
        )
        assert same_json(dict(hit.payload), dict(expected.payload)), (
            f"{hit.id!r}: expected payload {expected.payload}, got {hit.payload}"
        )
        _assert_legs_agree(hit, expected, rtol)
    assert [(-hit.score, hit.id) for hit in got] == sorted((-hit.score, hit.id) for hit in got), (
        f"hits are not sorted by (-score, id){details}"
    )


def _assert_legs_agree(hit: Hit, expected: Hit, rtol: float) -> None:
    """Assert that both hits have the same legs, with the same ranks and scores."""
    details = f"{hit.id!r}: expected legs {expected.legs}, got {hit.legs}"
    assert [(leg.leg, leg.field, leg.rank) for leg in hit.legs] == [
        (leg.leg, leg.field, leg.rank) for leg in expected.legs
    ], details
    for mine, theirs in zip(hit.legs, expected.legs, strict=True):
        assert abs(mine.score - theirs.score) <= rtol * max(1.0, abs(theirs.score)), details


def assert_records_agree(got: Sequence[Record], expected: Sequence[Record], rtol: float = 1e-6) -> None:
    """Assert that two lists of records are equal and in the same order; vectors may differ by ``rtol``."""
    got_ids, expected_ids = [record.id for record in got], [record.id for record in expected]
    assert got_ids == expected_ids, f"expected records {expected_ids}, got {got_ids}"
    for mine, theirs in zip(got, expected, strict=True):
        assert same_json(dict(mine.payload), dict(theirs.payload)), (
            f"{mine.id!r}: expected payload {theirs.payload}, got {mine.payload}"
        )
        assert set(mine.vectors) == set(theirs.vectors), (
            f"{mine.id!r}: expected vectors {sorted(theirs.vectors)}, got {sorted(mine.vectors)}"
        )
        for name, vector in theirs.vectors.items():
            assert same_vector(mine.vectors[name], vector, rtol), (
                f"{mine.id!r}: expected {name} {vector}, got {mine.vectors[name]}"
            )
