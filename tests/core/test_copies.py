"""Copies and pickles of models: the same vectors, settings of their own, also in a spawned process."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

import st_core

pytestmark = pytest.mark.torch

TEXTS = ["How do I copy a directory tree?", "a", "Parse a DATE string"]
PAIRS = [("where is heat", text) for text in TEXTS]
MODELS = [
    ("SentenceTransformer", "bert-mean"),
    ("SentenceTransformer", "plain-modernbert"),
    ("SentenceTransformer", "static"),
    ("SentenceTransformer", "words"),
    ("SentenceTransformer", "router"),
    ("SparseEncoder", "splade-max"),
    ("SparseEncoder", "sparse-static"),
    ("SparseEncoder", "sparse-router"),
    ("CrossEncoder", "rerank-bert"),
    ("CrossEncoder", "rerank-modernbert"),
]
GRAPHS = [("onnx", "onnxruntime"), ("openvino", "openvino")]
WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


def numbers(model):
    """The vectors or scores of a few inputs, as an array."""
    results = model.predict(PAIRS) if hasattr(model, "predict") else model.encode(TEXTS)
    return np.asarray(results.to_dense() if hasattr(results, "to_dense") else results)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "name"), MODELS)
@pytest.mark.parametrize("used", [False, True])
def test_a_copy_has_the_same_vectors(checkpoints, kind, name, way, used):
    """Before the first use and after it."""
    model = getattr(st_core, kind)(str(checkpoints.folder(name)), device="cpu")
    wanted = numbers(model) if used else None
    copied = WAYS[way](model)

    assert type(copied) is type(model)
    np.testing.assert_array_equal(numbers(copied), numbers(model) if wanted is None else wanted)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("backend", "runtime"), GRAPHS)
@pytest.mark.parametrize(("kind", "name"), [MODELS[0], MODELS[5], MODELS[8]])
def test_a_copy_of_a_model_on_a_graph_has_the_same_vectors(checkpoints, kind, name, backend, runtime, way):
    """A session cannot be copied: it is shared, or opened again."""
    pytest.importorskip(runtime, reason=f"needs {runtime}")
    model = getattr(st_core, kind)(str(checkpoints.folder(name)), backend=backend)
    copied = WAYS[way](model)

    assert copied.backend == backend
    np.testing.assert_array_equal(numbers(copied), numbers(model))


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_has_the_settings_and_its_own(checkpoints, way):
    """What was set on the model is set on the copy; what is set on the copy stays there."""
    folder = str(checkpoints.folder("bert-mean"))
    model = st_core.SentenceTransformer(folder, truncate_dim=12, prompts={"query": "ask: "}, device="cpu")
    model.max_seq_length, model.similarity_fn_name = 9, "dot"
    model.set_pooling_include_prompt(include_prompt=False)
    model.calibrate([*TEXTS, "more", "and more"])
    copied = WAYS[way](model)

    assert (copied.max_seq_length, copied.truncate_dim, copied.similarity_fn_name) == (9, 12, "dot")
    assert copied.prompts == model.prompts
    assert repr(copied) == repr(model)
    for options in ({"prompt_name": "query"}, {"precision": "int8"}):
        np.testing.assert_array_equal(copied.encode(TEXTS, **options), model.encode(TEXTS, **options))
    copied.max_seq_length, copied.truncate_dim = 5, 4
    with copied.truncate_embeddings(3):
        assert copied.encode("a tree").shape == (3,)
        assert model.encode("a tree").shape == (12,)
    assert (model.max_seq_length, model.truncate_dim) == (9, 12)
    if way != "copy":
        copied.prompts["query"] = "other: "
        assert model.prompts["query"] == "ask: "


def test_a_pickle_contains_no_token(checkpoints):
    """An access token for the Hub is not written into files."""
    folder = str(checkpoints.folder("static"))
    model = st_core.SentenceTransformer(folder, token="hf_verysecret", device="cpu")

    assert b"verysecret" not in pickle.dumps(model)


class Subclass(st_core.SentenceTransformer):
    """A model with a constructor of its own, which a pickle does not call."""

    def __init__(self, where, *, note):
        super().__init__(where, device="cpu")
        self.note = note


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_subclass_has_its_attributes(checkpoints, way):
    """Whatever arguments its constructor takes."""
    model = Subclass(str(checkpoints.folder("bert-mean")), note="ours")
    copied = WAYS[way](model)

    assert (type(copied), copied.note) == (Subclass, "ours")
    np.testing.assert_array_equal(numbers(copied), numbers(model))


@pytest.mark.long
def test_models_of_all_kinds_reach_a_spawned_process(checkpoints):
    """As arguments of a process pool."""
    models = [getattr(st_core, kind)(str(checkpoints.folder(name)), device="cpu") for kind, name in MODELS[::2]]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for model, results in zip(models, pool.map(numbers, models), strict=True):
            np.testing.assert_allclose(results, numbers(model), atol=1e-6)
