"""How near two sets of vectors are: cosine, inner product, and minus the Euclidean or Manhattan distance.

Vectors may be arrays, lists, torch tensors (dense or COO), scipy matrices, :class:`SparseVector` and :class:`SparseMatrix`, in any
mixture. The maths is numpy's and the result float32, whatever the input: a tensor, on the first tensor's device, if either side is
one, else an array. Sparse vectors are never made dense. One vector counts as a batch of one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.sparse_rows import BLOCK, Postings, SparseRows, check_widths, paired_sums, shared_sums
from st_core.vectors import SparseMatrix, SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SimilarityFunction",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
]

Score = Callable[[Any, Any], Any]
Blocks = Iterator[tuple[slice, "NDArray[Any]"]]


class SimilarityFunction(StrEnum):
    """The similarities a model can name."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @classmethod
    def _missing_(cls, value: object) -> SimilarityFunction:
        raise ValueError(f"{value!r} is no similarity function; there are {', '.join(cls.possible_values())}")

    @staticmethod
    def possible_values() -> list[str]:
        """Every name, in order."""
        return [member.value for member in SimilarityFunction]

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> Score:
        """The function that gives a matrix [a, b] of similarities."""
        return _MATRIX[SimilarityFunction(similarity_function)]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: str | SimilarityFunction) -> Score:
        """The function that gives the similarity of row i of both sides [n]."""
        return _PAIRWISE[SimilarityFunction(similarity_function)]


def cos_sim(a: Any, b: Any) -> Any:
    """The cosines [a, b]; a zero vector has cosine 0 with everything."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        return _matrix(shared_sums(left.unit(), Postings.of(right.unit()), np.multiply), left, right, like=(a, b))
    return _like((a, b), (unit_rows(left) @ unit_rows(right).T).astype(np.float32, copy=False))


def dot_score(a: Any, b: Any) -> Any:
    """The inner products [a, b]."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        return _matrix(shared_sums(left, Postings.of(right), np.multiply), left, right, like=(a, b))
    return _like((a, b), (left @ right.T).astype(np.float32, copy=False))


def euclidean_sim(a: Any, b: Any) -> Any:
    """Minus the Euclidean distances [a, b], from inner products in float64, so that near vectors keep their digits."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        squares = left.sums(left.values**2), right.sums(right.values**2)
        products = shared_sums(left, Postings.of(right), np.multiply)
    else:
        squares = tuple(np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (left, right))
        products = _dense_products(left, right)
    distances = (
        (rows, -np.sqrt(np.maximum(squares[0][rows, None] + squares[1] - 2 * block, 0))) for rows, block in products
    )
    return _matrix(distances, left, right, like=(a, b))


def manhattan_sim(a: Any, b: Any) -> Any:
    """Minus the Manhattan distances [a, b]."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        sums = left.sums(np.abs(left.values)), right.sums(np.abs(right.values))
        shared = shared_sums(left, Postings.of(right), _saved)
        distances = ((rows, block - sums[0][rows, None] - sums[1]) for rows, block in shared)
        return _matrix(distances, left, right, like=(a, b))
    return _matrix(_dense_manhattan(left, right), left, right, like=(a, b))


def pairwise_cos_sim(a: Any, b: Any) -> Any:
    """The cosine of row i of both sides [n]."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        return _vector(paired_sums(left.unit(), right.unit(), np.multiply), (a, b))
    return _vector((unit_rows(left) * unit_rows(right)).sum(axis=-1), (a, b))


def pairwise_dot_score(a: Any, b: Any) -> Any:
    """The inner product of row i of both sides [n]."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        return _vector(paired_sums(left, right, np.multiply), (a, b))
    return _vector((left * right).sum(axis=-1), (a, b))


def pairwise_euclidean_sim(a: Any, b: Any) -> Any:
    """Minus the Euclidean distance of row i of both sides [n]."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        shared = paired_sums(left, right, lambda mine, theirs: (mine - theirs) ** 2 - mine**2 - theirs**2)
        squares = left.sums(left.values**2) + right.sums(right.values**2) + shared
        return _vector(-np.sqrt(np.maximum(squares, 0)), (a, b))
    return _vector(-np.linalg.norm(left - right, axis=-1), (a, b))


def pairwise_manhattan_sim(a: Any, b: Any) -> Any:
    """Minus the Manhattan distance of row i of both sides [n]."""
    left, right = sides_of(a, b)
    if isinstance(left, SparseRows) and isinstance(right, SparseRows):
        sums = left.sums(np.abs(left.values)) + right.sums(np.abs(right.values))
        return _vector(paired_sums(left, right, _saved) - sums, (a, b))
    return _vector(-np.abs(left - right).sum(axis=-1), (a, b))


_MATRIX: dict[SimilarityFunction, Score] = {
    SimilarityFunction.COSINE: cos_sim,
    SimilarityFunction.DOT_PRODUCT: dot_score,
    SimilarityFunction.EUCLIDEAN: euclidean_sim,
    SimilarityFunction.MANHATTAN: manhattan_sim,
}
_PAIRWISE: dict[SimilarityFunction, Score] = {
    SimilarityFunction.COSINE: pairwise_cos_sim,
    SimilarityFunction.DOT_PRODUCT: pairwise_dot_score,
    SimilarityFunction.EUCLIDEAN: pairwise_euclidean_sim,
    SimilarityFunction.MANHATTAN: pairwise_manhattan_sim,
}


def _saved(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much a shared term makes the Manhattan distance less than the sum of both weights."""
    return np.abs(mine) + np.abs(theirs) - np.abs(mine - theirs)


def unit_rows(array: NDArray[Any]) -> NDArray[Any]:
    """Rows [n, d] divided by their Euclidean lengths, or by 1e-12 where they are shorter than that."""
    lengths = np.linalg.norm(array, axis=-1, keepdims=True)
    scaled: NDArray[Any] = array / np.maximum(lengths, 1e-12)
    return scaled


def _dense_products(left: NDArray[Any], right: NDArray[Any]) -> Blocks:
    """Inner products in float64, a block of rows at a time."""
    wide = right.T.astype(np.float64)
    height = max(1, BLOCK // max(1, len(right), left.shape[1]))
    for top in range(0, len(left), height):
        rows = slice(top, min(top + height, len(left)))
        yield rows, left[rows].astype(np.float64) @ wide


def _dense_manhattan(left: NDArray[Any], right: NDArray[Any]) -> Blocks:
    """Minus the Manhattan distances, a block of rows at a time: no more than BLOCK differences are held."""
    width = max(1, BLOCK // max(1, left.shape[1]))
    height = max(1, width // max(1, len(right)))
    for top in range(0, len(left), height):
        rows = slice(top, min(top + height, len(left)))
        parts = [
            -np.abs(left[rows, None] - right[None, start : start + width]).sum(axis=-1, dtype=np.float64)
            for start in range(0, len(right), width)
        ]
        yield rows, np.concatenate(parts, axis=1) if parts else np.empty((rows.stop - top, 0))


def _matrix(blocks: Blocks, left: Any, right: Any, like: tuple[Any, Any]) -> Any:
    """Put blocks of rows into one float32 matrix [left, right]."""
    scores = np.empty((len(left), len(right)), np.float32)
    for rows, block in blocks:
        scores[rows] = block
    return _like(like, scores)


def _vector(scores: NDArray[Any], like: tuple[Any, Any]) -> Any:
    """The scores of pairs [n] as float32; no dimension where both sides were lone vectors."""
    lone = all(_is_lone(side) for side in like)
    return _like(like, np.asarray(scores[0] if lone and scores.shape == (1,) else scores, dtype=np.float32))


def sides_of(a: Any, b: Any) -> tuple[Any, Any]:
    """Both sides as float arrays [n, d], or both as :class:`SparseRows` if either is sparse."""
    left, right = rows_of(a), rows_of(b)
    if isinstance(left, SparseRows) != isinstance(right, SparseRows):
        left = left if isinstance(left, SparseRows) else SparseRows.of_dense(left)
        right = right if isinstance(right, SparseRows) else SparseRows.of_dense(right)
    if not isinstance(left, SparseRows) and not isinstance(right, SparseRows):
        check_widths(left.shape[1], right.shape[1])
    return left, right


def rows_of(vectors: Any) -> NDArray[Any] | SparseRows:
    """Vectors of any kind as a float32 or float64 array [n, d] or as :class:`SparseRows`; one vector as one row."""
    if isinstance(vectors, SparseRows):
        return vectors
    if isinstance(vectors, SparseMatrix):
        return SparseRows.of_matrix(vectors)
    if isinstance(vectors, SparseVector | list | tuple):
        return _listed([vectors] if isinstance(vectors, SparseVector) else vectors)
    if is_tensor(vectors):
        return SparseRows.of_torch(vectors) if vectors.is_sparse else _dense(numpy_of(vectors))
    if hasattr(vectors, "tocsr"):
        return SparseRows.of_scipy(vectors)
    return _dense(np.asarray(vectors))


def _listed(vectors: list[Any] | tuple[Any, ...]) -> NDArray[Any] | SparseRows:
    """A list of vectors, or of numbers: one vector."""
    if vectors and all(isinstance(vector, SparseVector) for vector in vectors):
        return SparseRows.of_vectors(list(vectors))
    if vectors and all(is_tensor(vector) for vector in vectors):
        if any(vector.is_sparse for vector in vectors):
            return SparseRows.of_torch(sys.modules["torch"].stack(list(vectors)))
        return _dense(np.stack([numpy_of(vector) for vector in vectors]))
    return _dense(np.asarray(vectors))


def _dense(array: NDArray[Any]) -> NDArray[Any]:
    """An array [n, d] or [d] as float32 [n, d]; float64 stays, half and integers grow."""
    if array.ndim not in (1, 2):
        raise ValueError(f"vectors are an array [n, d] or [d], not one of {array.ndim} dimensions")
    rows = array[None, :] if array.ndim == 1 else array
    return rows if rows.dtype == np.float64 else rows.astype(np.float32, copy=False)


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor; torch is not imported to find out, since whoever holds a tensor has done so."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def numpy_of(tensor: Any) -> NDArray[Any]:
    """A dense tensor as an array; numpy has no bfloat16, so half precision grows to float32 first."""
    torch = sys.modules["torch"]
    dense = tensor.detach().cpu()
    array: NDArray[Any] = (dense if dense.dtype == torch.float64 else dense.float()).numpy()
    return array


def _is_lone(vectors: Any) -> bool:
    """Whether a side is one vector rather than a batch."""
    if isinstance(vectors, list | tuple):
        return not vectors or np.isscalar(vectors[0])
    return isinstance(vectors, SparseVector) or getattr(vectors, "ndim", 2) == 1


def _like(sides: tuple[Any, Any], scores: NDArray[np.float32]) -> Any:
    """Scores as a tensor on the device of the first tensor among the sides, or as they are if none is one."""
    for side in sides:
        sample = side[0] if isinstance(side, list | tuple) and side else side
        if is_tensor(sample):
            return sys.modules["torch"].from_numpy(scores).to(sample.device)
    return scores
