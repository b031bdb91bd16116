"""How certain the mean of a measure is: intervals by the bootstrap, and a paired test by random signs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEVEL", "RESAMPLES", "interval", "paired_p"]

RESAMPLES = 5000
LEVEL = 0.95
CHUNK = 1 << 20
"""Numbers that are drawn at once."""


def interval(
    values: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], seed: int = 0
) -> tuple[float, float]:
    """Return the bounds between which a statistic of the values [n] is, in 95 of 100 samples of them.

    ``statistic`` maps samples [m, n] to numbers [m]. This is the percentile bootstrap.
    """
    if values.size < 2:
        return (float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(values[generator.integers(0, values.size, (count, values.size))]) for count in _chunks(values.size)
    ]
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_p(first: NDArray[np.float64], second: NDArray[np.float64], seed: int = 0) -> float:
    """Return how probable a difference of the means [n] at least as large is, if both had the same distribution.

    The signs of the differences of the queries are drawn at random (Fisher's randomisation test, two-sided).
    """
    differences = first - second
    observed = abs(differences.mean())
    if not differences.any():
        return 1.0
    generator = np.random.default_rng(seed)
    larger = 0
    for count in _chunks(differences.size):
        signs = generator.integers(0, 2, (count, differences.size)) * 2 - 1
        larger += int((np.abs((signs * differences).mean(axis=1)) >= observed - 1e-12).sum())
    return (larger + 1) / (RESAMPLES + 1)


def _chunks(size: int) -> Iterator[int]:
    """Yield numbers of samples of a size that are drawn at once, in all ``RESAMPLES``."""
    most, left = max(1, CHUNK // size), RESAMPLES
    while left:
        count = min(most, left)
        left -= count
        yield count
