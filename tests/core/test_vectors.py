"""The one normal form of sparse vectors."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from st_core.vectors import MAX_INDEX, MIN_WEIGHT, SparseMatrix, SparseVector

scipy_sparse = pytest.importorskip("scipy.sparse")

WEIGHTS = st.floats(width=32, allow_nan=True, allow_infinity=True)
MAPPINGS = st.dictionaries(st.integers(0, MAX_INDEX), WEIGHTS, max_size=20)
DENSE = arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 9)),
    elements=st.sampled_from([0, 0, 0, 0.5, 1, 2.25, 2.0**127]),
)


def in_normal_form(vector):
    indices, values = vector.indices, vector.values
    return (
        indices.dtype == np.uint32
        and values.dtype == np.float32
        and bool((np.diff(indices.astype(np.int64)) > 0).all())
        and bool((np.isfinite(values) & (values >= MIN_WEIGHT)).all())
    )


@given(MAPPINGS)
def test_any_weights_take_the_normal_form(mapping):
    """Sorted, without what is zero, negative, subnormal, infinite or no number; everything else is kept."""
    kept = {key: value for key, value in mapping.items() if MIN_WEIGHT <= value < float("inf")}

    vector = SparseVector.from_mapping(mapping)

    assert in_normal_form(vector)
    assert vector.to_mapping() == kept


@given(DENSE)
def test_matrix_agrees_with_scipy(dense):
    """From dense, to scipy and back, to dense: the same numbers and the same structure as scipy's own."""
    matrix = SparseMatrix.from_dense(dense)
    theirs = scipy_sparse.csr_array(dense)

    assert matrix == SparseMatrix.from_scipy(theirs)
    assert np.array_equal(matrix.indptr, theirs.indptr)
    assert np.array_equal(matrix.to_dense(), dense)
    assert np.array_equal(matrix.to_scipy().toarray(), dense)


@given(DENSE, st.slices(6))
def test_slices_are_those_of_the_dense_array(dense, rows):
    """Any slice, with any step, is the slice of the dense array."""
    assert np.array_equal(SparseMatrix.from_dense(dense)[rows].to_dense(), dense[rows])


@given(DENSE)
def test_rows_put_together_are_the_matrix(dense):
    """Rows one by one, and parts under one another, make the matrix again."""
    matrix = SparseMatrix.from_dense(dense)
    middle = len(matrix) // 2

    assert SparseMatrix.from_rows(matrix.rows(), dense.shape[1]) == matrix
    assert SparseMatrix.concatenate([matrix[:middle], matrix[middle:]], dense.shape[1]) == matrix


@given(DENSE)
def test_inner_products_are_the_dense_ones(dense):
    """The product of two rows is that of the dense rows in float64."""
    matrix = SparseMatrix.from_dense(np.minimum(dense, 9))
    wide = matrix.to_dense().astype(np.float64)

    products = [[first.dot(second) for second in matrix] for first in matrix]

    assert np.allclose(np.array(products).reshape(len(matrix), len(matrix)), wide @ wide.T)


@given(MAPPINGS, st.integers(0, 25))
def test_top_keeps_the_heaviest(mapping, count):
    """The heaviest weights stay, of equal ones those of lower index."""
    vector = SparseVector.from_mapping(mapping)
    wanted = dict(sorted(vector.to_mapping().items(), key=lambda item: (-item[1], item[0]))[:count])

    assert vector.top(count).to_mapping() == wanted


def test_scipy_duplicates_are_summed():
    """Two weights in one place are one weight, as scipy means it."""
    twice = scipy_sparse.coo_array(([1.0, 2.0, -4.0], ([0, 0, 0], [1, 1, 2])), shape=(1, 3))

    assert SparseMatrix.from_scipy(twice)[0].to_mapping() == {1: 3.0}


@pytest.mark.parametrize(
    ("indices", "values"),
    [
        ([2, 1], [1, 1]),
        ([1, 1], [1, 1]),
        ([1], [0.0]),
        ([1], [-1.0]),
        ([1], [float("nan")]),
        ([1], [float("inf")]),
        ([1], [1e-39]),
        ([1, 2], [1.0]),
        ([MAX_INDEX + 1], [1.0]),
    ],
)
def test_plain_constructor_refuses_what_is_not_in_the_form(indices, values):
    """Nothing is mended silently where the caller said that it is in the form already."""
    with pytest.raises(ValueError):
        SparseVector(np.array(indices, np.uint32), np.array(values, np.float32))


@pytest.mark.parametrize(("indices", "values"), [([1, 1], [1, 2]), ([-1], [1]), ([2**32], [1]), ([0.5], [1])])
def test_from_arrays_refuses_what_no_form_has(indices, values):
    """Two weights of one index, and indices that are none, are mistakes."""
    with pytest.raises(ValueError):
        SparseVector.from_arrays(indices, values)


def test_values_cannot_be_changed_through_what_they_show():
    """A vector's arrays are read-only."""
    vector = SparseVector.from_mapping({3: 1.0})

    with pytest.raises(ValueError):
        vector.values[0] = 2


@pytest.mark.parametrize("value", [SparseVector.from_mapping({3: 1.0}), SparseMatrix.from_dense(np.eye(2))])
def test_an_attribute_of_tensors_names_how_to_get_one(value):
    """Code for sentence-transformers, which returns tensors, learns what to change."""
    kind = type(value).__name__

    with pytest.raises(AttributeError, match=f"a {kind} has no attribute 'is_sparse'; encode.*convert_to_tensor=True"):
        _ = value.is_sparse
    with pytest.raises(AttributeError, match=f"a {kind} has no attribute 'nothing'$"):
        _ = value.nothing
    assert not hasattr(value, "coalesce")
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
