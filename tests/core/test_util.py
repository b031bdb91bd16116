"""``st_core.util`` under sentence-transformers' names: the same numbers, tensors for tensors, with gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

from sentence_transformers import util as theirs  # noqa: E402 - after the guard

from st_core import util  # noqa: E402 - after the guard
from st_core.quantization import quantize_embeddings  # noqa: E402 - after the guard

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning"),
]

MATRIX = ["cos_sim", "dot_score", "euclidean_sim", "manhattan_sim", "pytorch_cos_sim"]
PAIRWISE = ["pairwise_cos_sim", "pairwise_dot_score", "pairwise_euclidean_sim", "pairwise_manhattan_sim"]
LEFT, RIGHT = (np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32) for seed in (1, 2))


def test_every_name_is_there():
    """And the ones that sentence-transformers has mean what they mean there."""
    assert all(hasattr(util, name) and hasattr(theirs, name) for name in util.__all__)
    assert util.information_retrieval is util.semantic_search
    assert quantize_embeddings is util.quantize_embeddings


@pytest.mark.parametrize("name", [*MATRIX, *PAIRWISE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_scores_of_tensors_are_theirs(name, dtype):
    """A tensor of their type, with gradients."""
    left, right = (torch.from_numpy(each).to(dtype).requires_grad_() for each in (LEFT, RIGHT))
    wanted, results = getattr(theirs, name)(left, right), getattr(util, name)(left, right)

    assert results.dtype == wanted.dtype
    torch.testing.assert_close(results, wanted)
    results.sum().backward()
    assert left.grad is not None
    assert left.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [*MATRIX, *PAIRWISE])
@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows,
        lambda rows: rows[0],
        lambda rows: rows.tolist(),
        lambda rows: [torch.from_numpy(row) for row in rows],
        lambda rows: torch.from_numpy(rows).to_sparse(),
    ],
    ids=["array", "vector", "list", "tensors", "sparse"],
)
def test_scores_of_all_forms_are_theirs(name, form):
    """Arrays, single vectors, lists, lists of tensors, sparse tensors."""
    if name in PAIRWISE and form(LEFT) is not LEFT and np.ndim(LEFT[0]) == np.ndim(form(LEFT)):
        left, right = LEFT[:1], RIGHT[:1]
    else:
        left, right = form(LEFT), form(RIGHT)
    wanted = getattr(theirs, name)(left, right)

    np.testing.assert_allclose(as_array(getattr(util, name)(left, right)), as_array(wanted), atol=2e-5)


def as_array(scores):
    """A dense array of a tensor or an array."""
    scores = scores.to_dense() if hasattr(scores, "to_dense") else scores
    return np.asarray(scores)


def test_lengths_and_widths():
    """Normalised and truncated like there; arrays stay arrays, sparse tensors sparse."""
    tensor = torch.from_numpy(LEFT)
    torch.testing.assert_close(util.normalize_embeddings(tensor), theirs.normalize_embeddings(tensor))
    np.testing.assert_allclose(util.normalize_embeddings(LEFT), theirs.normalize_embeddings(tensor), atol=1e-6)
    sparse = torch.where(tensor > 0, tensor, 0.0).to_sparse()
    for each in (sparse, sparse[0]):
        results = util.normalize_embeddings(each)
        assert results.is_sparse
        torch.testing.assert_close(results.to_dense(), theirs.normalize_embeddings(each).to_dense())
    torch.testing.assert_close(util.truncate_embeddings(tensor, 3), theirs.truncate_embeddings(tensor, 3))
    assert util.truncate_embeddings(LEFT, None).shape == LEFT.shape


def test_devices_and_folders(checkpoints, tmp_path):
    """The default device, a batch on it, and whether a folder is a model."""
    assert util.get_device_name() == theirs.get_device_name()
    batch = {"input_ids": torch.zeros(2), "n": 3}
    assert util.batch_to_device(batch, "cpu") is batch
    for folder in (checkpoints.folder("bert-mean"), checkpoints.folder("plain-bert"), tmp_path):
        wanted = theirs.is_sentence_transformer_model(str(folder))
        assert util.is_sentence_transformer_model(str(folder)) == wanted
