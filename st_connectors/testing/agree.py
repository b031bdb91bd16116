"""When two answers agree: number by number, up to ties, a tie being scores within the field's declared relative tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from st_connectors.store import Hit, Record, Vector
from st_core.vectors import SparseVector

__all__ = ["assert_hits_agree", "assert_records_agree", "same_json", "same_vector"]


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same to the last detail: 1 is not 1.0 nor True, keys come in the same order."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(left) == list(right) and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same_json, left, right))
    return type(left) is type(right) and bool(left == right)


def same_vector(left: Vector, right: Vector, rtol: float) -> bool:
    """Whether two vectors are of one kind and one length and equal within ``rtol`` of their largest weight; sparse ones with the same indices."""
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
    """Assert that ``got`` is the page ``[offset, offset + limit)`` of ``full``, the oracle's whole ranking, up to ties.

    Each score must be the oracle's within ``rtol`` of the largest score in play, each position must hold a record whose true score is that
    position's, and the page must be sorted by ``(-score, id)`` on its own scores.
    """
    page = full[offset : offset + limit]
    shown = f"\n     got {[(hit.id, hit.score) for hit in got]}\nexpected {[(hit.id, hit.score) for hit in page]}"
    assert len({hit.id for hit in got}) == len(got), f"an id came twice{shown}"
    assert len(got) == len(page), f"{len(got)} hits instead of {len(page)}{shown}"
    truth = {hit.id: hit for hit in full}
    close = rtol * max((abs(hit.score) for hit in full), default=0.0)
    for hit, wanted in zip(got, page, strict=True):
        assert hit.id in truth, f"{hit.id!r} must not be found{shown}"
        true = truth[hit.id]
        assert abs(hit.score - true.score) <= close, f"{hit.id!r} scores {hit.score}, not {true.score}{shown}"
        assert abs(true.score - wanted.score) <= close, f"{hit.id!r} is where {wanted.id!r} belongs{shown}"
        assert same_json(dict(hit.payload), dict(true.payload)), (
            f"{hit.id!r} has payload {hit.payload}, not {true.payload}"
        )
        _assert_legs_agree(hit, true, rtol)
    assert [(-hit.score, hit.id) for hit in got] == sorted((-hit.score, hit.id) for hit in got), f"not in order{shown}"


def _assert_legs_agree(hit: Hit, true: Hit, rtol: float) -> None:
    """Assert that the same legs had the record, at the same rank, with the same score."""
    shown = f"{hit.id!r} has legs {hit.legs}, not {true.legs}"
    assert [(leg.leg, leg.field, leg.rank) for leg in hit.legs] == [
        (leg.leg, leg.field, leg.rank) for leg in true.legs
    ], shown
    for mine, theirs in zip(hit.legs, true.legs, strict=True):
        assert abs(mine.score - theirs.score) <= rtol * max(1.0, abs(theirs.score)), shown


def assert_records_agree(got: Sequence[Record], wanted: Sequence[Record], rtol: float = 1e-6) -> None:
    """Assert that two lists of records are equal in order: ids, payloads to the last detail, vectors within ``rtol``."""
    assert [record.id for record in got] == [record.id for record in wanted]
    for mine, theirs in zip(got, wanted, strict=True):
        assert same_json(dict(mine.payload), dict(theirs.payload)), (
            f"{mine.id!r}: {mine.payload} is not {theirs.payload}"
        )
        assert set(mine.vectors) == set(theirs.vectors), (
            f"{mine.id!r}: vectors {set(mine.vectors)}, not {set(theirs.vectors)}"
        )
        for name, vector in theirs.vectors.items():
            assert same_vector(mine.vectors[name], vector, rtol), (
                f"{mine.id!r}: {name} is {mine.vectors[name]}, not {vector}"
            )
