"""Which candidates of a query are its hard negatives."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Candidates", "Selection", "is_near_duplicate", "select"]

MORE = 10
"""Candidates for each negative, where margins and bounds leave some out."""

SHINGLE = 3
"""Words of a shingle, the unit in which texts are compared."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Documents of one query, best first, with their scores."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """How negatives are selected among the candidates of a query, which are not its positives.

    The margins and bounds apply first: ``absolute_margin`` leaves out candidates that score less than it below the
    lowest positive of the query, ``relative_margin`` those above that score less the share of its magnitude,
    ``max_score`` and ``min_score`` those outside of them, and ``max_quantile`` those above this quantile of the query's
    candidates. Then the first ``range_min`` are skipped, and ``num_negatives`` are selected among those up to rank
    ``range_max``: the first ones, or at random. A candidate that shares more than ``near_duplicates`` of its shingles
    of three words with a positive is left out; None leaves out none. Raises ValueError for values that contradict each
    other.
    """

    num_negatives: int = 3
    range_min: int = 0
    range_max: int | None = None
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    max_quantile: float | None = None
    sampling_strategy: Literal["top", "random"] = "top"
    near_duplicates: float | None = 0.8

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, got {self.num_negatives}")
        if self.range_min < 0 or (self.range_max is not None and self.range_max <= self.range_min):
            raise ValueError(f"range_max must be above range_min, got {self.range_min} to {self.range_max}")
        if self.range_max is not None and self.range_max - self.range_min < self.num_negatives:
            raise ValueError(
                f"ranks from {self.range_min} to {self.range_max} have fewer than num_negatives={self.num_negatives} "
                "candidates; raise range_max"
            )
        if self.sampling_strategy not in ("top", "random"):
            raise ValueError(f"sampling_strategy must be top or random, got {self.sampling_strategy!r}")
        for name in ("max_quantile", "near_duplicates"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {value}")

    @property
    def has_margin(self) -> bool:
        """Whether candidates are compared with the positives."""
        return self.absolute_margin is not None or self.relative_margin is not None

    @property
    def has_bound(self) -> bool:
        """Whether candidates are left out by their scores."""
        return self.has_margin or self.max_score is not None or self.min_score is not None

    def last_rank(self, positives: int, *, has_reranker: bool = False) -> int:
        """Return ``range_max``, or by default what most likely suffices beside the positives of a query."""
        if self.range_max is not None:
            return self.range_max
        may_leave_out = self.has_margin or self.max_score is not None or (has_reranker and self.min_score is not None)
        factor = MORE if may_leave_out or self.max_quantile is not None else 1
        return self.range_min + self.num_negatives * factor + positives


def select(
    candidates: Candidates,
    positives: Collection[str],
    selection: Selection,
    *,
    last_rank: int,
    lowest_positive: float | None = None,
    generator: random.Random | None = None,
) -> list[int]:
    """Return the positions of the negatives of a query among its candidates, the highest score first.

    Equal scores are in the order of the candidates. Positives are left out by their texts. ``lowest_positive`` is the
    lowest score of a positive, which margins need, and ``generator`` draws where the strategy is random.
    """
    scores = np.asarray(candidates.scores, np.float64)
    is_usable = np.array([text not in positives for text in candidates.texts], bool)
    is_usable &= _within(scores, is_usable, selection, lowest_positive)
    order = [int(place) for place in np.argsort(-scores, kind="stable") if is_usable[place]]
    if selection.near_duplicates is not None:
        shingles = [_shingles(text) for text in positives]
        limit = selection.near_duplicates
        order = [place for place in order if not _is_near(_shingles(candidates.texts[place]), shingles, limit)]
    window = order[:last_rank][selection.range_min :]
    if selection.sampling_strategy == "top" or len(window) <= selection.num_negatives:
        return window[: selection.num_negatives]
    drawn = (generator or random.Random(0)).sample(range(len(window)), selection.num_negatives)  # noqa: S311 - a sample
    return [window[place] for place in sorted(drawn)]


def _within(
    scores: np.ndarray[tuple[int], np.dtype[np.float64]],
    is_candidate: np.ndarray[tuple[int], np.dtype[np.bool_]],
    selection: Selection,
    lowest: float | None,
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which scores [n] are within the margins and bounds."""
    is_within = np.isfinite(scores)
    if selection.has_margin and lowest is None:
        raise ValueError("a margin needs the score of the positives; pass a cross_encoder that scores them")
    if selection.absolute_margin is not None and lowest is not None:
        is_within &= scores + selection.absolute_margin <= lowest
    if selection.relative_margin is not None and lowest is not None:
        is_within &= scores <= lowest - abs(lowest) * selection.relative_margin
    if selection.max_score is not None:
        is_within &= scores <= selection.max_score
    if selection.min_score is not None:
        is_within &= scores >= selection.min_score
    own = scores[is_candidate & np.isfinite(scores)]
    if selection.max_quantile is not None and own.size:
        is_within &= scores <= np.quantile(own, selection.max_quantile)
    return is_within


def is_near_duplicate(text: str, others: Sequence[str], limit: float = 0.8) -> bool:
    """Return whether a text shares more than a share of its shingles of three words with one of the others.

    The share is of the shingles of the shorter of both, so that a part of a text is a duplicate of the whole.
    """
    return _is_near(_shingles(text), [_shingles(other) for other in others], limit)


def _is_near(shingles: frozenset[tuple[str, ...]], others: Sequence[frozenset[tuple[str, ...]]], limit: float) -> bool:
    return any(len(shingles & other) > limit * min(len(shingles), len(other)) for other in others)


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return all successions of three words in lower case; a text of fewer words is one."""
    words = _WORD.findall(text.lower())
    last = max(1, len(words) - SHINGLE + 1)
    return frozenset(tuple(words[start : start + SHINGLE]) for start in range(last)) if words else frozenset()
