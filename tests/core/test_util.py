"""``st_core.util`` under sentence-transformers' names: the same numbers, tensors for tensors, with gradients."""

from __future__ import annotations

import inspect
import logging
import re
import subprocess
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import sentence_transformers  # noqa: E402 - after the guard
from sentence_transformers import util as theirs  # noqa: E402 - after the guard
from sentence_transformers.util import quantization as theirs_quantization  # noqa: E402 - after the guard
from torch.nn.utils.rnn import pad_sequence  # noqa: E402 - after the guard

from st_core import SentenceTransformer, SparseMatrix, quantization, util  # noqa: E402 - after the guard
from st_core.maxsim import _spans as chunk_spans  # noqa: E402 - after the guard
from st_core.quantization import quantize_embeddings  # noqa: E402 - after the guard
from st_core.util._absent import REASONS  # noqa: E402 - after the guard
from st_core.util.environment import get_installed_version  # noqa: E402 - after the guard

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning"),
]

MOVED = ("deprecated_import",)
"""Modules of theirs without public functions for users."""

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


def test_every_name_of_theirs_is_there_or_says_what_to_use():
    """Under the package and under its submodule, for an import and for an attribute."""
    missing = [name for name in theirs.__all__ if name not in REASONS and not hasattr(util, name)]
    assert missing == []
    for name in REASONS:
        assert not hasattr(util, name)
        with pytest.raises(AttributeError, match=re.escape(REASONS[name])):
            getattr(util, name)
        with pytest.raises(ImportError, match=re.escape(REASONS[name])):
            exec(f"from st_core.util import {name}", {})


@pytest.mark.parametrize("module", [each.name for each in iter_modules(theirs.__path__) if each.name not in MOVED])
def test_every_submodule_of_theirs_is_there(module):
    """A public function is found under its import path, or refused there too."""
    offered = import_module(f"st_core.util.{module}")
    whole = import_module(f"sentence_transformers.util.{module}")
    for name, value in vars(whole).items():
        if inspect.isfunction(value) and value.__module__ == whole.__name__ and not name.startswith("_"):
            if name in REASONS:
                with pytest.raises(ImportError, match=re.escape(REASONS[name])):
                    exec(f"from st_core.util.{module} import {name}", {})
            elif module != "dataset":
                assert list(inspect.signature(getattr(offered, name)).parameters)[:3] == list(
                    inspect.signature(value).parameters
                )[:3] or list(inspect.signature(value).parameters) == ["args", "kwargs"]


def test_importing_functions_imports_no_torch():
    """All names are imported without torch, and functions of texts and lists run without it."""
    code = (
        "import sys\n"
        "from st_core.util import *\n"
        "from st_core.util.quantization import semantic_search_faiss, quantize_embeddings\n"
        "assert fullname(3) == 'int'\n"
        "assert not is_dist_initialized()\n"
        "print([name for name in ('torch', 'scipy', 'faiss', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [*MATRIX, *PAIRWISE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_scores_of_arrays_are_tensors_as_theirs(name, dtype):
    """Read-only arrays too, without a warning."""
    left, right = LEFT.astype(dtype), RIGHT.astype(dtype)
    left.flags.writeable = False
    wanted, results = getattr(theirs, name)(left, right), getattr(util, name)(left, right)

    assert results.dtype == wanted.dtype
    torch.testing.assert_close(results, wanted)
    assert getattr(util, name)(left[0], right[0]).shape == getattr(theirs, name)(left[0], right[0]).shape


def test_scores_without_torch_are_arrays(monkeypatch):
    """The numbers of numpy."""
    wanted = util.cos_sim(LEFT, RIGHT).numpy()
    monkeypatch.setitem(sys.modules, "torch", None)
    scores = util.cos_sim(LEFT, RIGHT)

    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


@pytest.mark.parametrize("name", [*MATRIX, *PAIRWISE, "pairwise_angle_sim"])
def test_scores_of_sparse_vectors_are_tensors(name):
    """Matrices and vectors of a sparse encoder, sparse tensors with gradients, and both beside dense ones."""
    left, right = (np.where(each > 0, each, 0) for each in (LEFT, RIGHT))
    wanted = getattr(theirs, name)(left, right)
    leaf = torch.from_numpy(left).to_sparse().requires_grad_()
    forms = [(leaf, torch.from_numpy(right))]
    if name != "pairwise_angle_sim":
        forms += [(SparseMatrix.from_dense(left), right), (list(SparseMatrix.from_dense(left)), right)]
    for each in forms:
        torch.testing.assert_close(getattr(util, name)(*each), wanted, atol=2e-5, rtol=1e-5)
    getattr(util, name)(*forms[0]).sum().backward()
    assert leaf.grad.to_dense().abs().sum() > 0


@pytest.mark.parametrize("width", [6, 5])
def test_angles_are_theirs(width):
    """Even and odd widths, sparse beside dense, with gradients."""
    left, right = (torch.from_numpy(each[:, :width]).requires_grad_() for each in (LEFT, RIGHT))
    wanted = theirs.pairwise_angle_sim(left, right)

    torch.testing.assert_close(util.pairwise_angle_sim(left, right), wanted)
    torch.testing.assert_close(util.pairwise_angle_sim(LEFT[:, :width], right), wanted)
    torch.testing.assert_close(util.pairwise_angle_sim(left.detach().to_sparse(), right), wanted)


QUERIES, DOCUMENTS = (
    [torch.randn(length, 8, generator=torch.Generator().manual_seed(length)) for length in lengths]
    for lengths in ((3, 1, 4, 6), (2, 40, 5, 1))
)
RAGGED = {
    "lists": (QUERIES, DOCUMENTS, {}),
    "arrays": ([each.numpy() for each in QUERIES], [each.numpy() for each in DOCUMENTS], {}),
    "numbers": ([QUERIES[0].tolist()] * 4, [each.tolist() for each in DOCUMENTS], {}),
    "padded": (pad_sequence(QUERIES, batch_first=True), pad_sequence(DOCUMENTS, batch_first=True), {}),
    "half": ([each.bfloat16() for each in QUERIES], [each.bfloat16() for each in DOCUMENTS], {}),
    "integers": ([(each * 50).char() for each in QUERIES], [(each * 50).char() for each in DOCUMENTS], {}),
    "one": (QUERIES[0], DOCUMENTS[1], {"a_mask": torch.tensor([1, 0, 1]), "b_mask": torch.ones(40)}),
    "masks": (
        QUERIES,
        pad_sequence(DOCUMENTS, batch_first=True).numpy(),
        {"a_mask": [torch.arange(len(each)) % 3 < 2 for each in QUERIES], "b_mask": np.arange(160).reshape(4, 40) % 5},
    ),
    "without tokens": (QUERIES, [*DOCUMENTS[:3], torch.zeros(0, 8)], {}),
}


@pytest.mark.parametrize("name", ["maxsim", "maxsim_pairwise", "mean_maxsim", "mean_maxsim_pairwise"])
@pytest.mark.parametrize("case", RAGGED)
def test_maxsim_is_theirs_in_chunks_of_any_size(name, case):
    """Texts of unequal lengths, masked, padded, without tokens; a budget changes memory only."""
    queries, documents, masks = RAGGED[case]
    wanted = getattr(theirs, name)(queries, documents, **masks)

    for budget in (None, 1, 700, 10**9):
        scores = getattr(util, name)(queries, documents, **masks, chunk_elements=budget)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, wanted, atol=0.05 if case == "half" else 1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    "empty", [[], torch.zeros(0, 4, 8), np.zeros((0, 4, 8), np.float32)], ids=["list", "tensor", "array"]
)
def test_maxsim_of_nothing_is_empty(empty):
    """No queries, no documents, or neither."""
    assert util.maxsim(QUERIES, empty).shape == (4, 0)
    assert util.maxsim(empty, DOCUMENTS).shape == (0, 4)
    assert util.maxsim_pairwise(empty, empty).shape == (0,)
    assert util.maxsim(QUERIES, torch.zeros(2, 0, 8)).tolist() == [[-1e9, -1e9]] * 4


def test_maxsim_keeps_gradients_and_says_what_is_empty(caplog):
    """A document without tokens has a finite score and a warning; gradients reach both sides."""
    left, right = (torch.stack([each[:1] for each in side]).requires_grad_() for side in (QUERIES, DOCUMENTS))
    mask = torch.tensor([[1], [0], [1], [1]])
    scores = util.maxsim(left, right, b_mask=mask)
    scores[:, [0, 2]].sum().backward()

    assert (scores[:, 1] == -1e9).all()
    assert "without tokens" in caplog.text
    assert (left.grad.abs().sum() > 0, right.grad[[0, 2]].abs().sum() > 0) == (True, True)
    assert right.grad[1].abs().sum() == 0


def test_maxsim_refuses_what_does_not_fit():
    """Masks of another width or type, and unequal numbers of pairs."""
    with pytest.raises(ValueError, match="b_mask covers 3 tokens; expected 40"):
        util.maxsim(QUERIES, DOCUMENTS, b_mask=torch.ones(4, 3))
    with pytest.raises(TypeError, match="a_mask"):
        util.maxsim(QUERIES, DOCUMENTS, a_mask="none")
    with pytest.raises(ValueError, match="4 and 3"):
        util.maxsim_pairwise(QUERIES, DOCUMENTS[:3])


@given(widths=st.lists(st.integers(0, 50), min_size=1, max_size=30), budget=st.integers(1, 2000))
def test_chunks_cover_texts_once_within_the_budget(widths, budget):
    """A chunk of two or more texts never exceeds the budget."""
    spans = list(chunk_spans(widths, 3, 10, budget))

    assert [position for span in spans for position in range(span.start, span.stop)] == list(range(len(widths)))
    for span in spans:
        chunk = widths[span]
        assert len(chunk) == 1 or (3 * max(chunk) + 10) * len(chunk) <= budget


def test_similarity_functions_of_tokens():
    """They are functions of a set of vectors, not of a model's."""
    for name in ("maxsim", "meanmaxsim"):
        assert util.SimilarityFunction.to_similarity_fn(name).__name__ == name.replace("mean", "mean_")
        assert "pairwise" in util.SimilarityFunction.to_similarity_pairwise_fn(name).__name__
        with pytest.raises(ValueError, match="manhattan"):
            SentenceTransformer("builtin:dense", similarity_fn_name=name)
    assert (
        SentenceTransformer.SUPPORTED_SIMILARITY_FN_NAMES
        == sentence_transformers.SentenceTransformer.SUPPORTED_SIMILARITY_FN_NAMES
    )


@pytest.mark.parametrize(
    "form", [lambda rows: rows, torch.from_numpy, lambda rows: rows[0]], ids=["array", "tensor", "one"]
)
@pytest.mark.parametrize("count", [1, 2, 100])
def test_largest_values_are_theirs(form, count):
    """By absolute value, with their signs, in a new tensor of the same type."""
    wanted = theirs.select_max_active_dims(form(LEFT), count)

    torch.testing.assert_close(util.select_max_active_dims(form(LEFT), count), wanted)
    assert util.select_max_active_dims(LEFT, None) is LEFT
    with pytest.raises(ValueError, match="positive"):
        util.select_max_active_dims(LEFT, 0)


def test_counts_and_scipy_matrices_are_theirs():
    """Of sparse and dense tensors, and of one vector."""
    dense = torch.from_numpy(np.where(LEFT > 0.5, LEFT, 0))
    for each in (dense, dense.to_sparse(), dense[0], dense[0].to_sparse(), torch.zeros(0, 6)):
        torch.testing.assert_close(util.compute_count_vector(each), theirs.compute_count_vector(each))
    with pytest.raises(ValueError, match="3"):
        util.compute_count_vector(torch.zeros(1, 1, 1))
    np.testing.assert_array_equal(util.to_scipy_coo(dense.to_sparse()).toarray(), dense.numpy())


@pytest.mark.parametrize("name", ["stack_padded_token_embeddings", "cat_padded_token_embeddings"])
def test_batches_of_tokens_are_joined_as_theirs(name):
    """Padded to the longest batch, masks too."""
    batches, masks = [torch.ones(2, 3, 4), torch.ones(2, 5, 4)], [torch.ones(2, 3), torch.ones(2, 5)]
    for each, wanted in zip(getattr(util, name)(batches, masks), getattr(theirs, name)(batches, masks), strict=True):
        torch.testing.assert_close(each, wanted)


CORPUS = np.random.default_rng(3).normal(size=(40, 16)).astype(np.float32)
ASKED = np.random.default_rng(4).normal(size=(3, 16)).astype(np.float32)


@pytest.mark.parametrize("precision", ["float32", "uint8", "int8", "ubinary", "binary"])
@pytest.mark.parametrize("size", [40, 3, 0])
@pytest.mark.parametrize("library", ["faiss", "usearch"])
def test_searches_of_indexes_are_theirs(library, size, precision):
    """Float and quantized queries, rescored or not, small and empty corpora, an index made before.

    The libraries order equal scores as they like, and differently from run to run.
    """
    pytest.importorskip(library, reason=f"needs {library}")
    if precision in {"faiss": ("int8", "binary"), "usearch": ("uint8",)}[library]:
        with pytest.raises(ValueError, match="corpus_precision"):
            getattr(quantization, f"semantic_search_{library}")(ASKED, CORPUS, corpus_precision=precision)
        return
    ours_found = getattr(quantization, f"semantic_search_{library}")
    theirs_found = getattr(theirs_quantization, f"semantic_search_{library}")
    codes = quantize_embeddings(CORPUS, precision, calibration_embeddings=CORPUS)[:size]
    options = {"corpus_precision": precision, "top_k": 5, "calibration_embeddings": CORPUS, "rescore_multiplier": 8}
    for queries in (ASKED, quantize_embeddings(ASKED, precision, calibration_embeddings=CORPUS)):
        for rescore in (True, False):
            found, _, index = ours_found(queries, codes, **options, rescore=rescore, output_index=True)
            wanted, _ = theirs_found(queries, codes, **options, rescore=rescore)
            again = ours_found(queries, corpus_index=index, **options, rescore=rescore)[0]
            for each in (found, again):
                assert [[hit["score"] for hit in row] for row in each] == [
                    [hit["score"] for hit in row] for row in wanted
                ]
                if rescore and queries is ASKED:
                    assert each == wanted
    with pytest.raises(ValueError, match="either"):
        ours_found(ASKED)


def test_names_of_functions_and_rows_of_tables(tmp_path):
    """Names as theirs; the last row grows, a header alone does not; logging is off within a block only."""
    dense = SentenceTransformer("builtin:dense")
    for each in (util.maxsim, partial(util.maxsim, length_normalize=True), partial(util.maxsim), dense.similarity):
        assert util.similarity_fct_name(each) == theirs.similarity_fct_name(each)
    assert util.fullname(torch.nn.Tanh()) == theirs.fullname(torch.nn.Tanh)
    assert util.import_from_string("torch.nn.Tanh") is torch.nn.Tanh
    for path in ("Tanh", "torch.nn.Tanhh", "no_such_module.Tanh"):
        with pytest.raises(ImportError):
            util.import_from_string(path)
    table = tmp_path / "results.csv"
    table.write_bytes(b"epoch,score\r\n")
    assert util.append_to_last_row(table, [0.5]) is False
    table.write_bytes(b"epoch,score\r\n0,0.5\r\n1,0.7\r\n")
    assert util.append_to_last_row(table, [0.9]) is True
    assert table.read_bytes() == b"epoch,score\r\n0,0.5\r\n1,0.7,0.9\r\n"
    with util.disable_logging():
        assert not logging.getLogger().isEnabledFor(logging.ERROR)
    assert logging.getLogger().isEnabledFor(logging.ERROR)


def test_packages_of_requirements():
    """Met, unmet and unreadable requirements; versions and owners of packages."""
    util.check_version_requirements({"numpy": ">=1", "pytorch": ">=1", "python": {"specifier": ">=3"}, "scipy": "x"})
    util.check_version_requirements(None)
    with pytest.raises(ImportError, match="mine: the model requires numpy>=999"):
        util.check_version_requirements({"numpy": ">=999"}, source="mine")
    assert get_installed_version("numpy") == np.__version__
    assert get_installed_version("no-such-package") is None
    assert util.check_package_availability("no-such-package", "nobody") is False
    assert util.is_training_available() is bool(find_spec("accelerate") and find_spec("transformers"))
