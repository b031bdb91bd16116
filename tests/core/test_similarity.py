"""Similarities of dense and sparse vectors against plain numpy in float64, and against sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from st_core import similarity, sparse_rows
from st_core.similarity import SimilarityFunction
from st_core.vectors import SparseMatrix, SparseVector

NAMES = ["cosine", "dot", "euclidean", "manhattan"]
IN_TORCH = {"cosine": "cos_sim", "dot": "dot_score", "euclidean": "euclidean_sim", "manhattan": "manhattan_sim"}


def expected(name, left, right):
    """The similarity of every pair, by its definition, in float64."""
    a, b = (np.asarray(side, np.float64) for side in (left, right))
    match name:
        case "cosine":
            lengths = [np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in (a, b)]
            return (a / lengths[0]) @ (b / lengths[1]).T
        case "dot":
            return a @ b.T
        case "euclidean":
            return -np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    return -np.abs(a[:, None] - b[None]).sum(axis=2)


def some_vectors(rows, seed, *, density=1.0, positive=False):
    """Random float32 vectors [rows, 24]; the last is all zeros."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(rows, 24)) * (random.random((rows, 24)) < density)
    vectors[-1] = 0
    return (np.abs(vectors) if positive else vectors).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_dense_vectors_have_the_defined_similarity(name):
    """As a matrix, and in pairs its diagonal; float32 for float32 and float64."""
    left, right = some_vectors(7, 1), some_vectors(9, 2)

    for kind in (np.float32, np.float64):
        matrix = SimilarityFunction.to_similarity_fn(name)(left.astype(kind), right.astype(kind))
        pairs = SimilarityFunction.to_similarity_pairwise_fn(name)(left.astype(kind), right[:7].astype(kind))
        assert matrix.dtype == pairs.dtype == np.float32
        np.testing.assert_allclose(matrix, expected(name, left, right), atol=1e-5)
        np.testing.assert_allclose(pairs, np.diag(expected(name, left, right[:7])), atol=1e-5)


@pytest.mark.parametrize("form", ["matrix", "rows", "scipy", "mixed", "mixed-negative"])
@pytest.mark.parametrize("name", NAMES)
def test_sparse_vectors_have_the_similarity_of_the_dense_ones(name, form):
    """Whatever holds the sparse side; the other may be dense and negative. Empty rows count."""
    left, right = some_vectors(7, 3, density=0.3, positive=True), some_vectors(9, 4, density=0.3, positive=True)
    left[2] = 0
    if form == "mixed-negative":
        right = some_vectors(9, 5)
    forms = {
        "matrix": lambda: (SparseMatrix.from_dense(left), SparseMatrix.from_dense(right)),
        "rows": lambda: (list(SparseMatrix.from_dense(left)), SparseMatrix.from_dense(right)),
        "scipy": lambda: (SparseMatrix.from_dense(left).to_scipy(), SparseMatrix.from_dense(right)),
        "mixed": lambda: (SparseMatrix.from_dense(left), right),
        "mixed-negative": lambda: (SparseMatrix.from_dense(left), right),
    }
    a, b = forms[form]()

    np.testing.assert_allclose(SimilarityFunction.to_similarity_fn(name)(a, b), expected(name, left, right), atol=1e-5)
    pairs = SimilarityFunction.to_similarity_pairwise_fn(name)(a, b[:7])
    np.testing.assert_allclose(pairs, np.diag(expected(name, left, right[:7])), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_small_blocks_give_the_same(monkeypatch, name):
    """Where the blocks end changes nothing, for dense and for sparse vectors."""
    left, right = some_vectors(13, 6, density=0.4, positive=True), some_vectors(11, 7, density=0.4, positive=True)
    for module in (similarity, sparse_rows):
        monkeypatch.setattr(module, "BLOCK", 17)

    function = SimilarityFunction.to_similarity_fn(name)

    np.testing.assert_allclose(function(left, right), expected(name, left, right), atol=1e-5)
    sparse = function(SparseMatrix.from_dense(left), SparseMatrix.from_dense(right))
    np.testing.assert_allclose(sparse, expected(name, left, right), atol=1e-5)


@given(
    arrays(np.float32, (4, 6), elements=st.sampled_from([0, 0, 0, 0.5, 1.25, 3])),
    arrays(np.float32, (5, 6), elements=st.sampled_from([0, 0, 0, 0.5, 2, 7.75])),
)
@settings(deadline=None, max_examples=60)
def test_any_sparse_vectors_have_the_defined_similarity(left, right):
    """Random patterns of empty rows, empty columns and equal rows."""
    for name in NAMES:
        found = SimilarityFunction.to_similarity_fn(name)(SparseMatrix.from_dense(left), SparseMatrix.from_dense(right))
        np.testing.assert_allclose(found, expected(name, left, right), atol=1e-5)


def test_one_vector_is_a_batch_of_one():
    """Arrays, lists of numbers and sparse vectors; a pair of lone vectors has a lone score."""
    vector = np.array([1.0, 2.0, 0.0])
    sparse = SparseVector.from_dense(vector)

    for one in (vector, vector.tolist(), sparse):
        assert similarity.dot_score(one, one).tolist() == [[5.0]]
        assert float(similarity.pairwise_dot_score(one, one)) == 5.0
        assert similarity.pairwise_dot_score(one, one).ndim == 0
    assert similarity.dot_score(sparse, SparseMatrix.from_dense([[0, 3, 1], [1, 0, 0]])).tolist() == [[6.0, 1.0]]


def test_near_vectors_keep_their_distance():
    """The distance of two vectors that differ in the fifth digit is not lost to cancellation."""
    base = np.full((1, 200), 10.0)
    moved = base + 1e-5

    assert similarity.euclidean_sim(base, moved)[0, 0] == pytest.approx(-1e-5 * np.sqrt(200), rel=1e-3)
    assert similarity.euclidean_sim(base, base)[0, 0] == 0


@pytest.mark.parametrize("empty", [np.empty((0, 24), np.float32), SparseMatrix.from_dense(np.empty((0, 24)))])
def test_no_vectors_have_no_similarities(empty):
    """An empty side gives an empty matrix of the right width."""
    other = some_vectors(3, 8)

    for name in NAMES:
        assert SimilarityFunction.to_similarity_fn(name)(empty, other).shape == (0, 3)
        assert SimilarityFunction.to_similarity_fn(name)(other, empty).shape == (3, 0)


def test_different_dimensions_are_refused():
    """With both widths in the message, dense and sparse."""
    for left, right in (
        (np.ones((2, 3)), np.ones((2, 4))),
        (SparseMatrix.from_dense(np.ones((2, 3))), np.ones((2, 4))),
    ):
        for name in NAMES:
            with pytest.raises(ValueError, match=r"3.*4"):
                SimilarityFunction.to_similarity_fn(name)(left, right)
    with pytest.raises(ValueError, match="dimensions"):
        similarity.cos_sim(np.ones((2, 3, 4)), np.ones((2, 3)))


def test_names_are_those_of_sentence_transformers():
    """Known by value, equal to plain strings; an unknown one names the known."""
    assert SimilarityFunction.possible_values() == [*NAMES, "maxsim", "meanmaxsim"]
    assert SimilarityFunction("dot") is SimilarityFunction.DOT is SimilarityFunction.DOT_PRODUCT
    assert SimilarityFunction.COSINE == "cosine"
    with pytest.raises(ValueError, match="manhattan"):
        SimilarityFunction("cosin")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning", "ignore:Sparse CSR tensor:UserWarning")
@pytest.mark.parametrize("layout", ["dense", "sparse", "half", "listed"])
@pytest.mark.parametrize("name", NAMES)
def test_tensors_give_tensors_and_the_oracle_agrees(name, layout):
    """A tensor on either side gives a float32 tensor with sentence-transformers' numbers, sparse, half or in a list."""
    import torch
    from sentence_transformers import util

    a, b = (torch.from_numpy(some_vectors(rows, rows, density=0.6)) for rows in (6, 5))
    if layout == "sparse":
        a, b = a.to_sparse(), b.to_sparse()
    if layout == "half":
        a, b = a.bfloat16(), b.bfloat16()
    if layout == "listed":
        a, b = list(a), list(b)
    theirs = getattr(util, IN_TORCH[name])

    found = SimilarityFunction.to_similarity_fn(name)(a, b)

    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, theirs(a, b), atol=1e-5)
    if layout == "dense":
        assert isinstance(SimilarityFunction.to_similarity_fn(name)(a.numpy(), b), torch.Tensor)
        pairs = SimilarityFunction.to_similarity_pairwise_fn(name)(a[:5], b)
        np.testing.assert_allclose(pairs, getattr(util, f"pairwise_{IN_TORCH[name]}")(a[:5], b), atol=1e-5)
