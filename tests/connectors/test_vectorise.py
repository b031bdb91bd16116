"""What encoders give, in any of the forms that libraries give it, becomes the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

from st_connectors.schema import FieldKind
from st_connectors.vectorise import dense_rows, sparse_rows, vectors_of
from st_core.vectors import SparseMatrix, SparseVector

ARRAY = np.array([[0.0, 1.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0], [3.0, -1.0, 0.5, 0.0]], dtype=np.float32)
POSITIVE = SparseMatrix.from_dense(ARRAY)


@pytest.mark.parametrize(
    "given",
    [ARRAY, ARRAY.astype(np.float64), ARRAY.tolist(), list(ARRAY), tuple(ARRAY)],
    ids=["float32", "float64", "lists", "list of arrays", "tuple"],
)
def test_dense_forms_are_one(given):
    """Arrays of any type and lists of rows become float32 [n, d]."""
    rows = dense_rows(given)

    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, ARRAY)


def test_a_lone_vector_is_not_rows():
    """One vector for several texts is a mistake that is told."""
    with pytest.raises(ValueError, match="an array of two dimensions, not 1"):
        dense_rows(ARRAY[0])


@pytest.mark.parametrize("form", ["csr_array", "csc_array", "coo_array", "csr_matrix"])
def test_scipy_forms_are_one(form):
    """Every scipy form becomes the normal form: positive weights, sorted."""
    sparse = pytest.importorskip("scipy.sparse")

    assert sparse_rows(getattr(sparse, form)(ARRAY)) == POSITIVE


def test_our_own_and_dense_and_lists_of_vectors():
    """Ours stays itself; dense arrays and lists of vectors become the same rows."""
    assert sparse_rows(POSITIVE) is POSITIVE
    assert sparse_rows(ARRAY) == POSITIVE
    assert list(sparse_rows(list(POSITIVE.rows()))) == list(POSITIVE)
    assert list(sparse_rows([SparseVector.from_mapping({})])) == [SparseVector.from_mapping({})]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("form", ["dense", "coo", "csr", "half"])
def test_torch_forms_are_one(form):
    """Torch tensors of every layout, also of half precision, dense or sparse."""
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(ARRAY)
    shaped = {"dense": tensor, "coo": tensor.to_sparse(), "csr": tensor.to_sparse_csr(), "half": tensor.half()}[form]

    assert sparse_rows(shaped) == POSITIVE
    if form in {"dense", "half"}:
        np.testing.assert_array_equal(dense_rows(shaped), ARRAY)
        np.testing.assert_array_equal(dense_rows(list(shaped)), ARRAY)


@pytest.mark.parametrize(("kind", "given"), [(FieldKind.DENSE, ARRAY), (FieldKind.SPARSE, POSITIVE)])
def test_the_number_of_vectors_is_checked(kind, given):
    """As many as texts, in order."""
    rows = vectors_of(given, kind, 3)

    for row, expected in zip(rows, ARRAY, strict=True):
        if isinstance(row, SparseVector):
            assert row == SparseVector.from_dense(expected)
        else:
            np.testing.assert_array_equal(row, expected)
    with pytest.raises(ValueError, match="expected 2 vectors from the encoder, one per text, not 3"):
        vectors_of(given, kind, 2)
