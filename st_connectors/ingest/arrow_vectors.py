"""Convert Arrow columns of vectors to the contract's vectors, and encoded vectors to Arrow columns."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from st_connectors.ingest.sources.plain_values import Unreadable
from st_connectors.schema import FieldKind
from st_connectors.vectorise import dense_rows, sparse_rows
from st_core.vectors import MAX_INDEX, SparseMatrix, SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_connectors.store import Vector

__all__ = ["Cell", "check_dense_type", "check_sparse_types", "read_dense", "read_sparse", "vectors_to_arrow"]

Cell: TypeAlias = "Vector | Unreadable | None"
"""A vector, why the row has none that is valid, or None for null."""

INDICES, VALUES = "indices", "values"
"""The names of the two lists of a sparse vector in a struct."""


def vectors_to_arrow(vectors: object, kind: FieldKind) -> Any:
    """Return encoded vectors as an Arrow array with one row per text.

    ``vectors`` is what an encoder returns: dense [n, d] becomes ``fixed_size_list<float>[d]``, and sparse [n, V]
    becomes ``struct<indices: list<uint32>, values: list<float>>``.
    """
    import pyarrow as pa

    if kind is FieldKind.SPARSE:
        matrix = sparse_rows(vectors)
        offsets = pa.array(matrix.indptr, pa.int32())
        lists = [pa.ListArray.from_arrays(offsets, pa.array(part)) for part in (matrix.indices, matrix.values)]
        return pa.StructArray.from_arrays(lists, names=[INDICES, VALUES])
    rows = dense_rows(vectors)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def check_dense_type(kind: Any, column: str) -> None:
    """Raise ValueError unless an Arrow type is a list of numbers; a column of nulls is accepted."""
    plain = _storage_type(kind)
    if _is_list(plain) and (_is_list(plain.value_type) or _rank(kind) > 1):
        raise ValueError(
            f"column {column!r} has several vectors in a row ({kind}), and no store declares multi-vectors: "
            "write one vector per row, a list of numbers"
        )
    if not _is_null(plain) and not _is_numbers(plain):
        raise ValueError(f"column {column!r} must be a list of numbers, one dense vector per row, not {kind}")


def check_sparse_types(kinds: tuple[Any, ...], columns: tuple[str, ...]) -> None:
    """Raise ValueError unless Arrow types are those of sparse vectors: one struct, or two lists."""
    names = " and ".join(map(repr, columns))
    if len(kinds) == 1:
        kind = kinds[0]
        if _is_null(kind):
            return
        if not _has_both(kind):
            raise ValueError(
                f"column {names} must be struct<{INDICES}: list<uint32>, {VALUES}: list<float>>, not {kind}; "
                "name two columns of lists as (indices, values)"
            )
        kinds = (kind.field(INDICES).type, kind.field(VALUES).type)
    indices, values = map(_storage_type, kinds)
    if not (_is_null(indices) or (_is_numbers(indices) and not _has_fractions(indices.value_type))):
        raise ValueError(f"the indices of {names} must be a list of integers, not {indices}")
    if not (_is_null(values) or _is_numbers(values)):
        raise ValueError(f"the values of {names} must be a list of numbers, not {values}")


def read_dense(column: Any) -> list[Cell]:
    """Return one array per row, without a copy where possible, and None for null; a null number becomes NaN."""
    bounds, numbers = _flatten(column)
    return [
        numbers[start:end] if is_valid else None
        for (start, end), is_valid in zip(pairwise(bounds), _validity(column), strict=True)
    ]


def read_sparse(columns: tuple[Any, ...]) -> list[Cell]:
    """Return one vector per row from one column of structs or from columns of indices and of values.

    Weights that are zero or negative are dropped, as everywhere. A row with NaN, infinite or null weights, or with
    indices that are not in order of a vector, is Unreadable.
    """
    indices, values = _lists_of(columns)
    has_indices, has_values = _validity(indices), _validity(values)
    starts, flat_indices = _flatten(indices)
    others, flat_values = _flatten(values)
    if starts == others and has_indices == has_values:
        matrix = _as_matrix(starts, flat_indices, flat_values)
        if matrix is not None:
            return [row if is_valid else None for row, is_valid in zip(matrix.rows(), has_indices, strict=True)]
    rows = zip(has_indices, has_values, pairwise(starts), pairwise(others), strict=True)
    return [
        _sparse_cell(flat_indices[slice(*at)] if one else None, flat_values[slice(*to)] if other else None)
        for one, other, at, to in rows
    ]


def _as_matrix(bounds: list[int], indices: NDArray[Any], values: NDArray[Any]) -> SparseMatrix | None:
    """Return the matrix of rows that are all in normal form, else None."""
    is_whole = indices.dtype.kind in "iu"
    if not is_whole or (indices.size and (int(indices.min()) < 0 or int(indices.max()) > MAX_INDEX)):
        return None
    try:
        weights = _as_float32(values)
        return SparseMatrix(np.array(bounds), indices.astype(np.uint32), weights, (len(bounds) - 1, MAX_INDEX + 1))
    except ValueError:
        return None


def _sparse_cell(indices: NDArray[Any] | None, values: NDArray[Any] | None) -> Cell:
    if indices is None and values is None:
        return None
    if indices is None or values is None:
        return Unreadable("one of indices and values is null, and the other is not")
    weights = _as_float32(values)
    if not np.isfinite(weights).all():
        return Unreadable("a weight is NaN, infinite in float32, or null")
    if indices.dtype.kind == "f":  # pyarrow 25 reads integers with nulls as float64
        if not np.isfinite(indices).all():
            return Unreadable("an index is null")
        indices = indices.astype(np.int64)
    try:
        return SparseVector.from_arrays(indices, weights)
    except ValueError as error:
        return Unreadable(str(error))


def _as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _lists_of(columns: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the lists of indices and of values; those of a null struct are null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(columns) == 2:
        return columns
    if _is_null(columns[0].type):
        empty = pa.nulls(len(columns[0]), pa.list_(pa.float32()))
        return empty, empty
    return pc.struct_field(columns[0], INDICES), pc.struct_field(columns[0], VALUES)


def _flatten(column: Any) -> tuple[list[int], NDArray[Any]]:
    """Return the bounds of the rows, [n + 1], and the numbers of all rows; null rows have none."""
    import pyarrow.compute as pc

    plain = _storage(column)
    if _is_null(plain.type):
        return [0] * (len(plain) + 1), np.empty(0, np.float32)
    lengths = pc.fill_null(pc.list_value_length(plain), 0).to_numpy(zero_copy_only=False)
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return bounds.tolist(), plain.flatten().to_numpy(zero_copy_only=False)


def _validity(column: Any) -> list[bool]:
    valid: list[bool] = column.is_valid().to_pylist()
    return valid


def _storage(column: Any) -> Any:
    """Return the lists behind a column of tensors, or the column itself."""
    return getattr(column, "storage", column)


def _storage_type(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)


def _rank(kind: Any) -> int:
    """Return the number of dimensions of a type of tensors; 1 for other types."""
    return len(getattr(kind, "shape", None) or (0,))


def _is_null(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_null(kind))


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_numbers(kind: Any) -> bool:
    from pyarrow import types

    if not _is_list(kind):
        return False
    return bool(types.is_integer(kind.value_type) or _has_fractions(kind.value_type) or types.is_null(kind.value_type))


def _has_fractions(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_floating(kind))


def _has_both(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind)) and kind.get_field_index(INDICES) >= 0 and kind.get_field_index(VALUES) >= 0
