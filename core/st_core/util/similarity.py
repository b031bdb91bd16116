"""Similarities under the import path of ``sentence_transformers.util.similarity``, as tensors.

Vectors may be of any type that :mod:`st_core.similarity` supports. Dense vectors are computed by torch, with gradients,
in float64 if they are float64, else in float32; sparse vectors by numpy, or as dense ones if they need gradients.
Without torch, results are arrays. torch is imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from st_core import similarity
from st_core.maxsim import maxsim, maxsim_pairwise, mean_maxsim, mean_maxsim_pairwise
from st_core.similarity import Score, SimilarityFunction
from st_core.tensors import as_batch, as_floats, is_tensor

if TYPE_CHECKING:
    import torch

__all__ = [
    "SimilarityFunction",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "maxsim",
    "maxsim_pairwise",
    "mean_maxsim",
    "mean_maxsim_pairwise",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "pytorch_cos_sim",
]

Tensors = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def cos_sim(a: object, b: object) -> torch.Tensor:
    """Return the cosines of all pairs of vectors [a, b]."""
    return _matrix(a, b, lambda left, right: _unit(left) @ _unit(right).T, similarity.cos_sim)


def pytorch_cos_sim(a: object, b: object) -> torch.Tensor:
    """Call :func:`cos_sim`, under its old name."""
    return cos_sim(a, b)


def dot_score(a: object, b: object) -> torch.Tensor:
    """Return the inner products of all pairs of vectors [a, b]."""
    return _matrix(a, b, lambda left, right: left @ right.T, similarity.dot_score)


def euclidean_sim(a: object, b: object) -> torch.Tensor:
    """Return the negative Euclidean distances of all pairs of vectors [a, b]."""
    return _matrix(a, b, partial(_negative_distances, power=2.0), similarity.euclidean_sim)


def manhattan_sim(a: object, b: object) -> torch.Tensor:
    """Return the negative Manhattan distances of all pairs of vectors [a, b]."""
    return _matrix(a, b, partial(_negative_distances, power=1.0), similarity.manhattan_sim)


def pairwise_cos_sim(a: object, b: object) -> torch.Tensor:
    """Return the cosines [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: (_unit(left) * _unit(right)).sum(-1), similarity.pairwise_cos_sim)


def pairwise_dot_score(a: object, b: object) -> torch.Tensor:
    """Return the inner products [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: (left * right).sum(-1), similarity.pairwise_dot_score)


def pairwise_euclidean_sim(a: object, b: object) -> torch.Tensor:
    """Return the negative Euclidean distances [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: -_real(left - right).norm(dim=-1), similarity.pairwise_euclidean_sim)


def pairwise_manhattan_sim(a: object, b: object) -> torch.Tensor:
    """Return the negative Manhattan distances [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: -(left - right).abs().sum(-1), similarity.pairwise_manhattan_sim)


def pairwise_angle_sim(x: object, y: object) -> torch.Tensor:
    """Return the similarities [n] of the AnglE loss for rows with the same index in both sets of vectors [n, d].

    It is the absolute value of the cosine plus the sine of vectors whose dimensions i and i + d / 2 are the real and
    the imaginary part of one complex number. A zero is added to vectors of odd width.
    """
    from torch.nn.functional import pad

    left, right = (as_batch(as_floats(_of_torch(side))) for side in (x, y))
    left, right = (_unit(pad(side.to_dense(), (0, side.shape[1] % 2))) for side in (left, right))
    (real, imaginary), (other_real, other_imaginary) = left.chunk(2, dim=1), right.chunk(2, dim=1)
    sines = (imaginary * other_real - real * other_imaginary).sum(1)
    return ((left * right).sum(1) + sines).abs()


def _matrix(a: object, b: object, on_tensors: Tensors, on_rows: Score) -> torch.Tensor:
    """Return :func:`_scores` of two sets of vectors; a single vector is a set of one."""
    return _scores(a, b, lambda left, right: on_tensors(as_batch(left), as_batch(right)), on_rows)


def _scores(a: object, b: object, on_tensors: Tensors, on_rows: Score) -> torch.Tensor:
    """Return scores computed by torch for dense vectors, and by numpy for sparse ones, on the device of the first."""
    try:
        import torch
    except ImportError:
        arrays: torch.Tensor = on_rows(a, b)  # the annotations are those of an environment with torch
        return arrays
    sides = [_of_torch(side) for side in (a, b)]
    if any(_is_sparse(side) for side in sides):
        scores = on_rows(*sides)
        return scores if is_tensor(scores) else torch.as_tensor(scores)
    left, right = (as_floats(side) for side in sides)
    return on_tensors(left, right.to(left.device))


def _of_torch(vectors: object) -> object:
    """Return vectors unchanged, and sparse tensors that need gradients as dense tensors."""
    if isinstance(vectors, list | tuple) and any(is_tensor(each) for each in vectors):
        vectors = as_floats(vectors)
    return vectors.to_dense() if is_tensor(vectors) and vectors.is_sparse and vectors.requires_grad else vectors


def _is_sparse(vectors: object) -> bool:
    """Return whether vectors are a sparse tensor, or of another type than a tensor, an array or a list of numbers."""
    if is_tensor(vectors):
        return vectors.is_sparse
    if isinstance(vectors, list | tuple) and vectors:
        return not isinstance(vectors[0], np.ndarray | np.number | list | tuple | int | float)
    return not isinstance(vectors, np.ndarray | list | tuple)


def _unit(tensor: torch.Tensor) -> torch.Tensor:
    """Return vectors scaled to unit length."""
    from torch.nn import functional

    return functional.normalize(_real(tensor), p=2, dim=-1)


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of floats unchanged, and one of integers as float32."""
    return tensor if tensor.is_floating_point() else tensor.float()


def _negative_distances(left: torch.Tensor, right: torch.Tensor, *, power: float) -> torch.Tensor:
    import torch

    return -torch.cdist(_real(left), _real(right), p=power)
