"""Compute sums over the shared terms of two sets of sparse rows with numpy, without converting them to dense arrays.

Unlike the weights of a ``SparseMatrix``, those of :class:`SparseRows` may be negative, because tensors and dense arrays
are also converted to sparse rows when they are compared with a sparse matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.vectors import SparseMatrix, SparseVector

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from scipy.sparse import sparray, spmatrix

__all__ = ["BLOCK", "Postings", "SparseRows", "check_widths", "paired_sums", "shared_sums"]

Kernel = Callable[["NDArray[np.float64]", "NDArray[np.float64]"], "NDArray[np.float64]"]
"""A function from the two weights of a shared term to its contribution to a sum.

Terms that occur in only one of the two rows contribute nothing.
"""

BLOCK = 1 << 21
"""The maximum number of scores, and of compared terms, per block: 16 MB of float64 values each."""


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Sparse rows in CSR form: ``indptr`` [rows + 1], ``indices`` [nnz] and ``values`` float64 [nnz].

    Indices increase within each row, and weights may be negative. ``width`` is None for rows from sparse vectors, whose
    width is unknown.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float64]
    width: int | None

    def __len__(self) -> int:
        return self.indptr.size - 1

    @classmethod
    def of_matrix(cls, matrix: SparseMatrix) -> SparseRows:
        """Return the rows of a matrix."""
        return cls(matrix.indptr, matrix.indices.astype(np.int64), matrix.values.astype(np.float64), matrix.shape[1])

    @classmethod
    def of_vectors(cls, vectors: list[SparseVector]) -> SparseRows:
        """Return vectors as rows of unknown width."""
        indptr = np.cumsum([0, *map(len, vectors)], dtype=np.int64)
        indices = np.concatenate([np.empty(0, np.int64), *(vector.indices.astype(np.int64) for vector in vectors)])
        values = np.concatenate([np.empty(0), *(vector.values.astype(np.float64) for vector in vectors)])
        return cls(indptr, indices, values, None)

    @classmethod
    def of_dense(cls, array: NDArray[np.floating]) -> SparseRows:
        """Return the entries of a dense array [n, V] that are not zero."""
        rows, columns = np.nonzero(array)
        return cls._of_sorted(rows, columns, array[rows, columns], array.shape)

    @classmethod
    def of_scipy(cls, matrix: sparray | spmatrix) -> SparseRows:
        """Return the rows of a scipy sparse matrix or array [n, V]; duplicates are summed."""
        csr = matrix.tocsr(copy=True)
        csr.sum_duplicates()
        return cls(csr.indptr.astype(np.int64), csr.indices.astype(np.int64), csr.data.astype(np.float64), csr.shape[1])

    @classmethod
    def of_torch(cls, tensor: torch.Tensor) -> SparseRows:
        """Return the rows of a torch COO tensor [n, V] or [V]; duplicates are summed."""
        coo = (tensor.unsqueeze(0) if tensor.dim() == 1 else tensor).detach().coalesce()
        rows, columns = coo.indices().cpu().numpy()
        return cls._of_sorted(rows, columns, coo.values().double().cpu().numpy(), tuple(coo.shape))

    @classmethod
    def _of_sorted(
        cls,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        values: NDArray[np.floating],
        shape: tuple[int, ...],
    ) -> SparseRows:
        indptr = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=shape[0]), out=indptr[1:])
        return cls(indptr, columns.astype(np.int64), values.astype(np.float64), shape[1])

    def slice(self, start: int, stop: int) -> SparseRows:
        """Return the rows from ``start`` to ``stop``, as a view of the same memory."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        indptr = self.indptr[start : stop + 1] - first
        return SparseRows(indptr, self.indices[first:last], self.values[first:last], self.width)

    def take(self, rows: NDArray[np.int64]) -> SparseRows:
        """Return the rows at the specified positions, in the order of the positions."""
        counts = np.diff(self.indptr)[rows]
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], counts)
        return SparseRows(indptr, self.indices[places], self.values[places], self.width)

    def row_numbers(self) -> NDArray[np.int64]:
        """Return the row number of each weight [nnz]."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def sums(self, terms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of ``terms`` [nnz], one value for each weight, within each row [rows]."""
        return np.bincount(self.row_numbers(), terms, minlength=len(self)).astype(np.float64, copy=False)

    def unit(self) -> SparseRows:
        """Return every row divided by its Euclidean length; empty rows stay empty."""
        lengths = np.sqrt(self.sums(self.values**2))
        scaled = self.values / np.maximum(lengths, 1e-12)[self.row_numbers()]
        return SparseRows(self.indptr, self.indices, scaled, self.width)

    def to_dense(self, width: int) -> NDArray[np.float64]:
        """Return a dense array [rows, width]."""
        dense = np.zeros((len(self), width))
        dense[self.row_numbers(), self.indices] = self.values
        return dense


def check_widths(left: int | None, right: int | None) -> None:
    """Raise ValueError if two widths differ; None, an unknown width, matches every width."""
    if left is not None and right is not None and left != right:
        raise ValueError(
            f"expected vectors of one width, got {left} and {right} dimensions; compare vectors of the same model"
        )


@dataclass(frozen=True, slots=True)
class Postings:
    """Transposed sparse rows: ``columns``, ``rows`` and ``values`` of all weights [nnz], sorted by column.

    ``height`` is the number of rows.
    """

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    height: int
    width: int | None

    @classmethod
    def of(cls, rows: SparseRows) -> Postings:
        """Return the postings of sparse rows; one object serves many calls of :func:`shared_sums`."""
        order = np.argsort(rows.indices, kind="stable")
        return cls(rows.indices[order], rows.row_numbers()[order], rows.values[order], len(rows), rows.width)


def shared_sums(left: SparseRows, right: Postings, kernel: Kernel) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield, for blocks of rows of ``left``, the sums of ``kernel`` over the terms shared with each row of ``right``.

    Each result is (slice of the rows of ``left``, float64 [rows, right]). Time is proportional to the number of shared
    terms, and memory to the size of a block plus the number of weights of ``right``.
    """
    check_widths(left.width, right.width)
    starts = np.searchsorted(right.columns, left.indices, "left")
    counts = np.searchsorted(right.columns, left.indices, "right") - starts
    bases = left.row_numbers() * right.height
    step = max(1, BLOCK // max(1, right.height))
    for top in range(0, len(left), step):
        rows = slice(top, min(top + step, len(left)))
        cells = np.zeros((rows.stop - top) * right.height)
        for first, last in _cuts(counts, int(left.indptr[top]), int(left.indptr[rows.stop])):
            part = counts[first:last]
            ends = np.cumsum(part)
            places = np.arange(ends[-1]) + np.repeat(starts[first:last] - ends + part, part)
            terms = kernel(np.repeat(left.values[first:last], part), right.values[places])
            targets = np.repeat(bases[first:last], part) - top * right.height + right.rows[places]
            cells += np.bincount(targets, terms, minlength=cells.size)
        yield rows, cells.reshape(rows.stop - top, right.height)


def _cuts(counts: NDArray[np.int64], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of the weights from ``first`` to ``last``, each with at most BLOCK shared terms.

    ``counts`` are the numbers of terms that each weight shares. A weight that shares more than BLOCK terms is a range
    of its own.
    """
    ends = np.cumsum(counts[first:last])
    start = 0
    while start < last - first:
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK, "right")))
        if int(ends[stop - 1]) > done:
            yield first + start, first + stop
        start = stop


def paired_sums(left: SparseRows, right: SparseRows, kernel: Kernel) -> NDArray[np.float64]:
    """Return, for each row index, the sum of ``kernel`` over the terms that both rows contain; shape [rows]."""
    check_widths(left.width, right.width)
    if len(left) != len(right):
        raise ValueError(f"expected as many rows on both sides, got {len(left)} and {len(right)}")
    width = 1 + max(int(side.indices.max(initial=-1)) for side in (left, right))
    keys = (left.row_numbers() * width + left.indices, right.row_numbers() * width + right.indices)
    _, mine, theirs = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    terms = kernel(left.values[mine], right.values[theirs])
    return np.bincount(left.row_numbers()[mine], terms, minlength=len(left)).astype(np.float64, copy=False)
