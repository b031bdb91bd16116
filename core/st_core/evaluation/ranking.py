"""Measures of a ranking: functions of the relevance of its documents, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Judgements",
    "average_precision",
    "discounted_gain",
    "grades_of",
    "ideal_grades",
    "reciprocal_rank",
]

Judgements: TypeAlias = Mapping[str, float] | AbstractSet[str]
"""The grades of a query's relevant documents by id, or their ids, which then have the grade 1."""


def grades_of(ids: Sequence[str], judged: Judgements) -> NDArray[np.float64]:
    """Return the grade of each document [n]; documents without a judgement have 0."""
    if isinstance(judged, Mapping):
        return np.array([judged.get(each, 0) for each in ids], np.float64)
    return np.array([each in judged for each in ids], np.float64)


def ideal_grades(judged: Judgements) -> NDArray[np.float64]:
    """Return the positive grades of a query, the highest first."""
    grades = np.array(list(judged.values()) if isinstance(judged, Mapping) else [1.0] * len(judged), np.float64)
    return -np.sort(-grades[grades > 0])


def discounted_gain(grades: NDArray[np.float64], depth: int) -> float:
    """Return the sum of the first grades, each divided by the logarithm of its rank plus one."""
    first = grades[:depth]
    return float((first / np.log2(np.arange(2, first.size + 2))).sum())


def reciprocal_rank(grades: NDArray[np.float64], depth: int) -> float:
    """Return one over the rank of the first relevant document, 0 if there is none."""
    ranks = np.flatnonzero(grades[:depth] > 0)
    return 1.0 / (int(ranks[0]) + 1) if ranks.size else 0.0


def average_precision(grades: NDArray[np.float64], depth: int, relevant: int) -> float:
    """Return the mean of the precision at each relevant document, over as many as the ranking could contain."""
    is_relevant = grades[:depth] > 0
    precision = is_relevant.cumsum() / np.arange(1, is_relevant.size + 1)
    return float((precision * is_relevant).sum() / min(depth, relevant))
