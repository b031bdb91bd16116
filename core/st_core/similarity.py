"""Compute similarities of two sets of vectors: cosine, inner product, negative Euclidean or Manhattan distance.

Vectors may be arrays, lists, torch tensors (dense or COO), scipy matrices, :class:`SparseVector` and
:class:`SparseMatrix`, and the two sets may be of different types. Similarities are computed by numpy and returned as
float32: as a tensor on the device of the first tensor if either set is a tensor, else as an array. Sparse vectors are
not converted to dense vectors. A single vector is treated as a set of one vector.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from st_core.sparse_rows import BLOCK, Postings, SparseRows, check_widths, paired_sums, shared_sums
from st_core.tensors import Floats, is_tensor, numpy_of
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

Scores: TypeAlias = Any
"""A float32 array, or a float32 tensor if either set of vectors is a tensor."""

Score = Callable[[object, object], Scores]
Blocks = Iterator[tuple[slice, Floats]]
"""Slices of rows of the first set, each with the scores of these rows."""


class SimilarityFunction(StrEnum):
    """The similarity functions; MaxSim compares texts that have one vector per token, and no model here uses it."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"
    MAXSIM = "maxsim"
    MEAN_MAXSIM = "meanmaxsim"

    @classmethod
    def _missing_(cls, value: object) -> SimilarityFunction:
        raise ValueError(f"unknown similarity function {value!r}; expected one of {', '.join(cls.possible_values())}")

    @staticmethod
    def possible_values() -> list[str]:
        """Return the names of all similarity functions."""
        return [member.value for member in SimilarityFunction]

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> Score:
        """Return the function that computes the similarities of all pairs of vectors [a, b]."""
        function = SimilarityFunction(similarity_function)
        return _MATRIX[function] if function in _MATRIX else _of_tokens(function)[0]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: str | SimilarityFunction) -> Score:
        """Return the function that computes the similarities [n] of rows with the same index in both sets."""
        function = SimilarityFunction(similarity_function)
        return _PAIRWISE[function] if function in _PAIRWISE else _of_tokens(function)[1]


def cos_sim(a: object, b: object) -> Scores:
    """Return the cosines of all pairs of vectors [a, b]; the cosine of a zero vector and any other vector is 0."""
    sides = sides_of(a, b)
    if isinstance(sides, SparseSides):
        blocks = shared_sums(sides.left.unit(), Postings.of(sides.right.unit()), np.multiply)
        return _matrix(blocks, sides, like=(a, b))
    return _like((a, b), (unit_rows(sides.left) @ unit_rows(sides.right).T).astype(np.float32, copy=False))


def dot_score(a: object, b: object) -> Scores:
    """Return the inner products of all pairs of vectors [a, b]."""
    sides = sides_of(a, b)
    if isinstance(sides, SparseSides):
        return _matrix(shared_sums(sides.left, Postings.of(sides.right), np.multiply), sides, like=(a, b))
    return _like((a, b), (sides.left @ sides.right.T).astype(np.float32, copy=False))


def euclidean_sim(a: object, b: object) -> Scores:
    """Return the negative Euclidean distances of all pairs of vectors [a, b].

    They are computed from inner products in float64, because float32 would lose the digits of small distances.
    """
    sides = sides_of(a, b)
    products: Blocks
    if isinstance(sides, SparseSides):
        lefts, rights = (side.sums(side.values**2) for side in sides)
        products = shared_sums(sides.left, Postings.of(sides.right), np.multiply)
    else:
        lefts, rights = (np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in sides)
        products = _dense_products(sides)
    distances = ((rows, -np.sqrt(np.maximum(lefts[rows, None] + rights - 2 * block, 0))) for rows, block in products)
    return _matrix(distances, sides, like=(a, b))


def manhattan_sim(a: object, b: object) -> Scores:
    """Return the negative Manhattan distances of all pairs of vectors [a, b]."""
    sides = sides_of(a, b)
    if isinstance(sides, SparseSides):
        lefts, rights = (side.sums(np.abs(side.values)) for side in sides)
        shared = shared_sums(sides.left, Postings.of(sides.right), _overlap)
        distances = ((rows, block - lefts[rows, None] - rights) for rows, block in shared)
        return _matrix(distances, sides, like=(a, b))
    return _matrix(_dense_manhattan(sides), sides, like=(a, b))


def pairwise_cos_sim(a: object, b: object) -> Scores:
    """Return the cosines [n] of rows with the same index in both sets."""
    sides = sides_of(a, b)
    if isinstance(sides, SparseSides):
        return _vector(paired_sums(sides.left.unit(), sides.right.unit(), np.multiply), (a, b))
    return _vector((unit_rows(sides.left) * unit_rows(sides.right)).sum(axis=-1), (a, b))


def pairwise_dot_score(a: object, b: object) -> Scores:
    """Return the inner products [n] of rows with the same index in both sets."""
    sides = sides_of(a, b)
    if isinstance(sides, SparseSides):
        return _vector(paired_sums(sides.left, sides.right, np.multiply), (a, b))
    return _vector((sides.left * sides.right).sum(axis=-1), (a, b))


def pairwise_euclidean_sim(a: object, b: object) -> Scores:
    """Return the negative Euclidean distances [n] of rows with the same index in both sets."""
    sides = sides_of(a, b)
    if isinstance(sides, SparseSides):
        left, right = sides
        shared = paired_sums(left, right, lambda mine, theirs: (mine - theirs) ** 2 - mine**2 - theirs**2)
        squares = left.sums(left.values**2) + right.sums(right.values**2) + shared
        return _vector(-np.sqrt(np.maximum(squares, 0)), (a, b))
    return _vector(-np.linalg.norm(sides.left - sides.right, axis=-1), (a, b))


def pairwise_manhattan_sim(a: object, b: object) -> Scores:
    """Return the negative Manhattan distances [n] of rows with the same index in both sets."""
    sides = sides_of(a, b)
    if isinstance(sides, SparseSides):
        left, right = sides
        sums = left.sums(np.abs(left.values)) + right.sums(np.abs(right.values))
        return _vector(paired_sums(left, right, _overlap) - sums, (a, b))
    return _vector(-np.abs(sides.left - sides.right).sum(axis=-1), (a, b))


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


def _of_tokens(function: SimilarityFunction) -> tuple[Score, Score]:
    """Return the functions that compute MaxSim of all pairs and of pairs by position."""
    from st_core import maxsim

    if function is SimilarityFunction.MAXSIM:
        return maxsim.maxsim, maxsim.maxsim_pairwise
    return maxsim.mean_maxsim, maxsim.mean_maxsim_pairwise


class DenseSides(NamedTuple):
    """Two sets of vectors of equal width as arrays [n, d]."""

    left: Floats
    right: Floats


class SparseSides(NamedTuple):
    """Two sets of vectors as sparse rows."""

    left: SparseRows
    right: SparseRows


def _overlap(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference between the sum of the weights of a shared term and its Manhattan distance."""
    return np.abs(mine) + np.abs(theirs) - np.abs(mine - theirs)


def unit_rows(array: Floats) -> Floats:
    """Return rows [n, d] divided by their Euclidean lengths; lengths below 1e-12 count as 1e-12."""
    lengths = np.linalg.norm(array, axis=-1, keepdims=True)
    return np.asarray(array / np.maximum(lengths, 1e-12))


def _dense_products(sides: DenseSides) -> Blocks:
    """Yield inner products in float64, one block of rows at a time."""
    left, right = sides
    wide = right.T.astype(np.float64)
    height = max(1, BLOCK // max(1, len(right), left.shape[1]))
    for top in range(0, len(left), height):
        rows = slice(top, min(top + height, len(left)))
        yield rows, left[rows].astype(np.float64) @ wide


def _dense_manhattan(sides: DenseSides) -> Blocks:
    """Yield negative Manhattan distances, one block of rows at a time, with at most BLOCK differences in memory."""
    left, right = sides
    width = max(1, BLOCK // max(1, left.shape[1]))
    height = max(1, width // max(1, len(right)))
    for top in range(0, len(left), height):
        rows = slice(top, min(top + height, len(left)))
        parts = [
            -np.abs(left[rows, None] - right[None, start : start + width]).sum(axis=-1, dtype=np.float64)
            for start in range(0, len(right), width)
        ]
        yield rows, np.concatenate(parts, axis=1) if parts else np.empty((rows.stop - top, 0))


def _matrix(blocks: Blocks, sides: DenseSides | SparseSides, like: tuple[object, object]) -> Scores:
    """Return blocks of rows as one float32 matrix [left, right], of the type that the inputs ``like`` require."""
    scores = np.empty((len(sides.left), len(sides.right)), np.float32)
    for rows, block in blocks:
        scores[rows] = block
    return _like(like, scores)


def _vector(scores: Floats, like: tuple[object, object]) -> Scores:
    """Return the scores of pairs [n] as float32, of the type that the inputs ``like`` require.

    If both inputs are single vectors, the result has no dimension.
    """
    is_single = scores.shape == (1,) and all(_is_single(side) for side in like)
    return _like(like, np.asarray(scores[0] if is_single else scores, dtype=np.float32))


def sides_of(a: object, b: object) -> DenseSides | SparseSides:
    """Return both sets as float32 or float64 arrays [n, d], or both as sparse rows if either set is sparse."""
    left, right = rows_of(a), rows_of(b)
    if not isinstance(left, SparseRows) and not isinstance(right, SparseRows):
        check_widths(left.shape[1], right.shape[1])
        return DenseSides(left, right)
    return SparseSides(
        left if isinstance(left, SparseRows) else SparseRows.of_dense(left),
        right if isinstance(right, SparseRows) else SparseRows.of_dense(right),
    )


def rows_of(vectors: object) -> Floats | SparseRows:
    """Return vectors of any supported type as a float32 or float64 array [n, d], or as sparse rows.

    A single vector is returned as one row.
    """
    if isinstance(vectors, SparseRows):
        return vectors
    if isinstance(vectors, SparseMatrix):
        return SparseRows.of_matrix(vectors)
    if isinstance(vectors, SparseVector | list | tuple):
        return _rows_of_list([vectors] if isinstance(vectors, SparseVector) else vectors)
    if is_tensor(vectors):
        return SparseRows.of_torch(vectors) if vectors.is_sparse else _dense(numpy_of(vectors))
    if hasattr(vectors, "tocsr"):
        return SparseRows.of_scipy(vectors)
    return _dense(np.asarray(vectors))


def _rows_of_list(vectors: Sequence[object]) -> Floats | SparseRows:
    """Return the rows of a list of vectors; a list of numbers is one vector."""
    sparse = [vector for vector in vectors if isinstance(vector, SparseVector)]
    if sparse and len(sparse) == len(vectors):
        return SparseRows.of_vectors(sparse)
    tensors = [vector for vector in vectors if is_tensor(vector)]
    if not tensors or len(tensors) < len(vectors):
        return _dense(np.asarray(vectors))
    if any(tensor.is_sparse for tensor in tensors):
        return SparseRows.of_torch(sys.modules["torch"].stack(tensors))
    return _dense(np.stack([numpy_of(tensor) for tensor in tensors]))


def _dense(array: NDArray[np.generic]) -> Floats:
    """Return an array [n, d] or [d] as [n, d]; float64 is kept, and other types are converted to float32."""
    if array.ndim not in (1, 2):
        raise ValueError(f"expected vectors of the shape [n, d] or [d], got {array.ndim} dimensions")
    rows: Any = array[None, :] if array.ndim == 1 else array
    dense: Floats = rows if rows.dtype == np.float64 else rows.astype(np.float32, copy=False)
    return dense


def _is_single(vectors: object) -> bool:
    """Return whether an input is a single vector rather than a set of vectors."""
    if isinstance(vectors, list | tuple):
        return not vectors or bool(np.isscalar(vectors[0]))
    return isinstance(vectors, SparseVector) or getattr(vectors, "ndim", 2) == 1


def _like(sides: tuple[object, object], scores: NDArray[np.float32]) -> Scores:
    """Return scores as a tensor on the device of the first tensor among the inputs, or unchanged if there is none."""
    for side in sides:
        sample = side[0] if isinstance(side, list | tuple) and side else side
        if is_tensor(sample):
            return sys.modules["torch"].from_numpy(scores).to(sample.device)
    return scores
