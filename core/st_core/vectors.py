"""Sparse vectors and matrices in a normal form, which need only numpy.

Indices are uint32 and strictly increasing. Weights are float32, finite, and at least the smallest normal float32,
1.17549435e-38, which is the minimum that Lucene's FeatureField accepts. ``from_arrays``, ``from_mapping``,
``from_dense`` and ``from_scipy`` drop other weights, and the constructors raise ValueError for them, so that code that
uses vectors need not check them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, overload

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_array, sparray, spmatrix

__all__ = ["MAX_INDEX", "MIN_WEIGHT", "SparseMatrix", "SparseVector"]

MIN_WEIGHT = float(np.finfo(np.float32).tiny)
MAX_INDEX = 2**32 - 2
"""The largest allowed index, because Milvus 2.5 rejects 2**32 - 1."""


_new = object.__new__


def _frozen(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a read-only view of an array, so that a vector cannot be modified through its arrays."""
    view = array.view()
    view.flags.writeable = False
    return view


def _check_weights(values: NDArray[np.float32]) -> None:
    """Raise ValueError unless every weight is finite and at least MIN_WEIGHT."""
    if values.size and not (np.isfinite(values).all() and float(values.min()) >= MIN_WEIGHT):
        raise ValueError(f"expected finite weights of at least {MIN_WEIGHT:.8g}; from_arrays drops others")


_OF_TENSORS = frozenset(
    ("coalesce", "cpu", "cuda", "detach", "device", "is_sparse", "ndim", "numpy", "size", "squeeze", "to", "unsqueeze")
)


def _refuse(value: object, name: str) -> NoReturn:
    """Raise AttributeError, with how to get a tensor for the name of one of its attributes."""
    instead = "; encode(…, convert_to_tensor=True) returns a tensor" if name in _OF_TENSORS else ""
    raise AttributeError(f"a {type(value).__name__} has no attribute {name!r}{instead}", name=name, obj=value)


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """One sparse vector: strictly increasing ``indices``, uint32 [n], and ``values``, float32 [n].

    Raises ValueError for arrays that are not in the normal form of this module.
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]

    if not TYPE_CHECKING:
        __getattr__ = _refuse

    def __post_init__(self) -> None:
        indices = np.ascontiguousarray(self.indices, dtype=np.uint32)
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        if indices.ndim != 1 or indices.shape != values.shape:
            raise ValueError(f"expected indices and values of one length, got {indices.shape} and {values.shape}")
        if indices.size > 1 and not bool((indices[1:] > indices[:-1]).all()):
            raise ValueError("expected strictly increasing indices; from_arrays sorts them")
        if indices.size and int(indices[-1]) > MAX_INDEX:
            raise ValueError(f"expected indices up to {MAX_INDEX}, got {int(indices[-1])}")
        _check_weights(values)
        object.__setattr__(self, "indices", _frozen(indices))
        object.__setattr__(self, "values", _frozen(values))

    @classmethod
    def trusted(cls, indices: NDArray[np.uint32], values: NDArray[np.float32]) -> SparseVector:
        """Return a vector of arrays that are known to be in normal form, without checks.

        The arrays are made read-only and must not be modified afterwards.
        """
        indices.setflags(False)  # type: ignore[call-arg] # write=False; passed by name, it takes twice the time
        values.setflags(False)  # type: ignore[call-arg]
        vector = _new(cls)
        _set_indices(vector, indices)
        _set_values(vector, values)
        return vector

    @classmethod
    def from_arrays(cls, indices: ArrayLike, values: ArrayLike) -> SparseVector:
        """Return the vector of indices in any order and their weights.

        Zero, negative, subnormal, NaN and infinite weights are dropped. Raises ValueError for an index that occurs
        twice, is negative or exceeds ``MAX_INDEX``.
        """
        raw = np.asarray(indices)
        weights = np.asarray(values, dtype=np.float32)
        if raw.ndim != 1 or raw.shape != weights.shape:
            raise ValueError(f"expected indices and values of one length, got {raw.shape} and {weights.shape}")
        if raw.size == 0:
            return EMPTY
        if not np.issubdtype(raw.dtype, np.integer):
            raise ValueError(f"expected integer indices, got {raw.dtype}")
        if int(raw.min()) < 0 or int(raw.max()) > MAX_INDEX:
            raise ValueError(f"expected indices from 0 to {MAX_INDEX}, got {raw.min()} to {raw.max()}")
        order = np.argsort(raw, kind="stable")
        ordered = raw[order].astype(np.uint32)
        if bool((ordered[1:] == ordered[:-1]).any()):
            raise ValueError("expected one weight per index, got two of one index")
        weights = weights[order]
        keep = np.isfinite(weights) & (weights >= MIN_WEIGHT)
        return cls(ordered[keep], weights[keep])

    @classmethod
    def from_mapping(cls, weights: Mapping[int, float]) -> SparseVector:
        """Return the vector of a mapping from index to weight."""
        if not weights:
            return EMPTY
        return cls.from_arrays(
            np.fromiter(weights.keys(), dtype=np.int64), np.fromiter(weights.values(), dtype=np.float64)
        )

    @classmethod
    def from_dense(cls, values: ArrayLike) -> SparseVector:
        """Return the vector of the positive entries of a dense array [V]."""
        array = np.asarray(values, dtype=np.float32)
        return cls.from_arrays(np.arange(array.shape[0], dtype=np.int64), array)

    def __len__(self) -> int:
        """Return the number of weights."""
        return int(self.indices.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseVector):
            return NotImplemented
        return np.array_equal(self.indices, other.indices) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.indices.tobytes(), self.values.tobytes()))

    def to_mapping(self) -> dict[int, float]:
        """Return the weights as a dict from index to weight, with Python numbers."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))

    def dot(self, other: SparseVector) -> float:
        """Return the inner product with another vector, summed in float64."""
        _, mine, theirs = np.intersect1d(self.indices, other.indices, assume_unique=True, return_indices=True)
        return float(self.values[mine].astype(np.float64) @ other.values[theirs].astype(np.float64))

    def top(self, count: int) -> SparseVector:
        """Return a vector with the ``count`` largest weights; among equal weights, the lower indices are kept."""
        if len(self) <= count:
            return self
        order = np.sort(np.lexsort((self.indices, -self.values))[:count])
        return SparseVector(self.indices[order], self.values[order])


_set_indices, _set_values = (vars(SparseVector)[name].__set__ for name in ("indices", "values"))
"""Setters of the fields of a frozen vector, slightly faster than ``object.__setattr__``."""

EMPTY = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class SparseMatrix:
    """Sparse vectors in CSR form: ``indptr`` int64 [rows + 1], ``indices`` uint32 [nnz], ``values`` float32 [nnz].

    ``shape`` is (rows, V). Every row is in the normal form of this module. ``matrix[3]`` is a :class:`SparseVector`,
    and ``matrix[2:5]`` a matrix that uses the same memory.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
    shape: tuple[int, int]

    if not TYPE_CHECKING:
        __getattr__ = _refuse

    def __post_init__(self) -> None:
        indptr = np.ascontiguousarray(self.indptr, dtype=np.int64)
        indices = np.ascontiguousarray(self.indices, dtype=np.uint32)
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        rows, width = self.shape
        if indptr.shape != (rows + 1,) or indices.shape != values.shape or indices.ndim != 1:
            raise ValueError(
                f"indptr {indptr.shape}, indices {indices.shape} and values {values.shape} do not make {rows} rows"
            )
        if int(indptr[0]) != 0 or int(indptr[-1]) != indices.size or bool((indptr[1:] < indptr[:-1]).any()):
            raise ValueError("indptr must rise from 0 to the number of weights")
        if indices.size:
            if int(indices.max()) >= width:
                raise ValueError(f"index {int(indices.max())} is outside {width} columns")
            rising = indices[1:] > indices[:-1]
            starts = indptr[1:-1]
            rising[starts[(starts > 0) & (starts < indices.size)] - 1] = True
            if not bool(rising.all()):
                raise ValueError("indices must be strictly increasing within each row")
        _check_weights(values)
        object.__setattr__(self, "indptr", _frozen(indptr))
        object.__setattr__(self, "indices", _frozen(indices))
        object.__setattr__(self, "values", _frozen(values))

    @classmethod
    def from_rows(cls, rows: Iterable[SparseVector], width: int) -> SparseMatrix:
        """Return a matrix with ``width`` columns whose rows are the vectors."""
        vectors = list(rows)
        indptr = np.zeros(len(vectors) + 1, np.int64)
        np.cumsum([len(row) for row in vectors], out=indptr[1:])
        indices = np.concatenate([row.indices for row in vectors]) if vectors else EMPTY.indices
        values = np.concatenate([row.values for row in vectors]) if vectors else EMPTY.values
        return cls(indptr, indices, values, (len(vectors), width))

    @classmethod
    def from_dense(cls, array: ArrayLike) -> SparseMatrix:
        """Return the matrix of the positive entries of a dense array [n, V]."""
        dense = np.asarray(array, dtype=np.float32)
        if dense.ndim != 2:
            raise ValueError(f"expected an array of two dimensions, got {dense.ndim}")
        keep = np.isfinite(dense) & (dense >= MIN_WEIGHT)
        rows, columns = np.nonzero(keep)
        indptr = np.zeros(dense.shape[0] + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=dense.shape[0]), out=indptr[1:])
        return cls(indptr, columns.astype(np.uint32), dense[keep], (dense.shape[0], dense.shape[1]))

    @classmethod
    def from_scipy(cls, matrix: sparray | spmatrix) -> SparseMatrix:
        """Return the matrix of a scipy sparse matrix or array [n, V]; duplicates are summed, as in scipy."""
        csr = matrix.tocsr(copy=True)
        csr.sum_duplicates()
        csr.data[~(np.isfinite(csr.data) & (csr.data >= MIN_WEIGHT))] = 0
        csr.eliminate_zeros()
        return cls(csr.indptr, csr.indices, csr.data.astype(np.float32), (int(csr.shape[0]), int(csr.shape[1])))

    @classmethod
    def concatenate(cls, parts: Sequence[SparseMatrix], width: int) -> SparseMatrix:
        """Return the concatenation of matrices of ``width`` columns along their rows."""
        offsets = np.cumsum([0, *(int(part.indptr[-1]) for part in parts)])
        pointers = [part.indptr[1:] + offset for part, offset in zip(parts, offsets, strict=False)]
        indptr = np.concatenate([np.zeros(1, np.int64), *pointers])
        indices = np.concatenate([part.indices for part in parts]) if parts else EMPTY.indices
        values = np.concatenate([part.values for part in parts]) if parts else EMPTY.values
        return cls(indptr, indices, values, (indptr.size - 1, width))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    @overload
    def __getitem__(self, key: int) -> SparseVector: ...
    @overload
    def __getitem__(self, key: slice) -> SparseMatrix: ...
    def __getitem__(self, key: int | slice) -> SparseVector | SparseMatrix:
        """Return the row at an index as a vector, or a slice of rows, with any step, as a matrix."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return SparseMatrix.from_rows((self[row] for row in range(start, stop, step)), self.shape[1])
            stop = max(start, stop)
            first, last = int(self.indptr[start]), int(self.indptr[stop])
            indptr = self.indptr[start : stop + 1] - first
            return SparseMatrix(
                indptr, self.indices[first:last], self.values[first:last], (stop - start, self.shape[1])
            )
        row = key + len(self) if key < 0 else key
        if not 0 <= row < len(self):
            raise IndexError(f"row {key} is outside a matrix of {len(self)} rows")
        first, last = int(self.indptr[row]), int(self.indptr[row + 1])
        return SparseVector.trusted(self.indices[first:last], self.values[first:last])

    def __iter__(self) -> Iterator[SparseVector]:
        return self.rows()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseMatrix):
            return NotImplemented
        return (
            self.shape == other.shape
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.values, other.values)
        )

    __hash__ = None  # type: ignore[assignment]

    def rows(self) -> Iterator[SparseVector]:
        """Return an iterator over the rows as :class:`SparseVector`."""
        return (self[row] for row in range(len(self)))

    def to_dense(self) -> NDArray[np.float32]:
        """Return a dense float32 array [rows, V]."""
        dense = np.zeros(self.shape, np.float32)
        dense[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return dense

    def to_scipy(self) -> csr_array:
        """Return a ``scipy.sparse.csr_array`` [rows, V] with int64 indices."""
        from scipy.sparse import csr_array

        return csr_array((self.values.copy(), self.indices.astype(np.int64), self.indptr.copy()), shape=self.shape)

    def to_torch(self) -> torch.Tensor:
        """Return a coalesced torch COO tensor [rows, V] on the CPU."""
        import torch

        rows = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        positions = torch.from_numpy(np.stack([rows, self.indices.astype(np.int64)]))
        values = torch.from_numpy(self.values.copy())
        return torch.sparse_coo_tensor(positions, values, self.shape, is_coalesced=True, check_invariants=False)
