"""Principal axes of vectors, and how well two models agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from st_core.evaluation.pairs import correlation, ranks

__all__ = ["Axes", "mean_cosine", "principal_axes", "similarity_correlation", "unit"]

Floats = NDArray[np.float32]

COMPARED = 1000
"""Texts whose similarities are compared, at most: their pairs are half a million."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Orthonormal directions [k, d] in which vectors vary most, largest variance first.

    ``explained`` is the share of the variance that they contain.
    """

    directions: Floats
    explained: float


def principal_axes(vectors: Floats, dimensions: int) -> Axes:
    """Return the directions of largest variance of vectors [n, d], computed in float64.

    The largest number of each direction is positive, so that the result does not depend on the library. Raises
    ValueError for more dimensions than the vectors have, and for fewer vectors than dimensions.
    """
    count, width = vectors.shape
    if not 1 <= dimensions <= width:
        raise ValueError(f"expected 1 to {width} dimensions, those of the teacher, got {dimensions}")
    if count < dimensions:
        raise ValueError(f"{dimensions} dimensions need at least as many texts, got {count}; pass more texts")
    centred = vectors.astype(np.float64)
    centred -= centred.mean(axis=0)
    variances, columns = np.linalg.eigh(centred.T @ centred)
    chosen = columns[:, ::-1][:, :dimensions].T
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1)[:, None], axis=1)
    total = float(variances.sum())
    explained = float(variances[::-1][:dimensions].sum()) / total if total > 0 else 1.0
    return Axes(np.ascontiguousarray(chosen * np.sign(largest), np.float32), explained)


def unit(vectors: Floats) -> Floats:
    """Return vectors [n, d] scaled to unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def mean_cosine(first: Floats, second: Floats) -> float:
    """Return the mean cosine of the vectors [n, d] of two models for the same texts."""
    return float((unit(first) * unit(second)).sum(axis=1).mean())


def similarity_correlation(first: Floats, second: Floats) -> float:
    """Return Spearman's correlation of the cosines of all pairs of texts in two models, whose widths may differ.

    ``first`` [n, d] and ``second`` [n, e] are vectors of the same texts, of which at most the first 1,000 are compared.
    The result is NaN for fewer than three texts.
    """
    rows = np.triu_indices(min(len(first), COMPARED), 1)
    if rows[0].size < 2:
        return float("nan")
    similarities = [(unit(each[:COMPARED]) @ unit(each[:COMPARED]).T)[rows] for each in (first, second)]
    return correlation(ranks(similarities[0]), ranks(similarities[1]))
