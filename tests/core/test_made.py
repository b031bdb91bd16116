"""Models that no checkpoint contains: of given modules, and with a new head, as sentence-transformers makes them."""

from __future__ import annotations

import copy
import gc
import logging
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 - after the guard
from st_core import models  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

TEXTS = ["How do I copy a directory tree?", "a", "Parse a DATE string"]
PAIRS = [("where is heat", text) for text in TEXTS]
DENSE, SPARSE, CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"


def theirs(names):
    """Return sentence-transformers' module classes by the names of ``models``."""
    places = [f"sentence_transformers.{family}.modules" for family in ("sentence_transformer", "sparse_encoder")]
    return [
        next(getattr(import_module(at), name) for at in places if hasattr(import_module(at), name)) for name in names
    ]


def numbers(model):
    """Return what a model computes of the texts, dense."""
    values = model.predict(PAIRS) if type(model).__name__ == CROSS else model.encode(TEXTS)
    return np.asarray(values.to_dense()) if hasattr(values, "to_dense") else values


def built(engine, kind, modules):
    """Return a model of modules on the processor."""
    return getattr(engine, kind)(modules=modules, device="cpu")


def pooled(kinds, folder, _tokenizer):
    transformer, pooling, normalize = kinds("Transformer", "Pooling", "Normalize")
    first = transformer(folder)
    return [first, pooling(first.get_embedding_dimension(), ("cls", "mean")), normalize()]


def projected(kinds, folder, _tokenizer):
    transformer, pooling, dense, norm, dropout = kinds("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout")
    torch.manual_seed(3)
    last = dense(32, 7, activation_function=torch.nn.GELU(), use_residual=True)
    return [transformer(folder, max_seq_length=9), pooling(32), norm(32), dropout(0.1), last]


def static(kinds, _folder, tokenizer):
    embedding, dense = kinds("StaticEmbedding", "Dense")
    table = np.random.default_rng(5).normal(size=(len(tokenizer), 8)).astype(np.float32)
    weight = torch.from_numpy(table[:6].copy())
    return [embedding(tokenizer, table), dense(8, 6, init_weight=weight, init_bias=torch.ones(6))]


def routed(kinds, folder, tokenizer):
    router, embedding, pooling, transformer = kinds("Router", "StaticEmbedding", "Pooling", "Transformer")
    torch.manual_seed(4)
    query = [embedding(tokenizer, embedding_dim=32)]
    return [router.for_query_document(query, [transformer(folder), pooling(32)])]


@pytest.mark.parametrize("make", [pooled, projected, static, routed])
def test_a_model_of_given_modules_has_their_vectors(checkpoints, agree, tmp_path, make):
    """Built, and saved and loaded on both sides."""
    from transformers import AutoTokenizer

    folder = str(checkpoints.transformer("bert"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = built(st_core, DENSE, make(lambda *names: [getattr(models, name) for name in names], folder, tokenizer))
    wanted = built(oracle, DENSE, make(lambda *names: theirs(names), folder, tokenizer))

    agree(numbers(model), numbers(wanted))
    agree(model.encode_query(TEXTS), wanted.encode_query(TEXTS))
    model.save_pretrained(tmp_path / "saved")
    for engine in (oracle, st_core):
        agree(numbers(engine.SentenceTransformer(str(tmp_path / "saved"), device="cpu")), numbers(wanted))


def test_a_sparse_encoder_of_given_modules_has_their_vectors(checkpoints, agree, tmp_path):
    """With a masked-language head for documents, and weights of tokens for queries; also after saving."""
    from transformers import AutoTokenizer

    folder = str(checkpoints.transformer("bert", "ForMaskedLM"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = []
    for names in (lambda *all_: [getattr(models, each) for each in all_], lambda *all_: theirs(all_)):
        router, mlm, splade, static_weights = names(
            "Router", "MLMTransformer", "SpladePooling", "SparseStaticEmbedding"
        )
        weight = torch.linspace(0.1, 2, len(tokenizer))
        documents = [mlm(folder), splade("sum", "log1p_relu")]
        made.append([router.for_query_document([static_weights(tokenizer, weight)], documents)])
    model, wanted = built(st_core, SPARSE, made[0]), built(oracle, SPARSE, made[1])

    agree(numbers(model), numbers(wanted))
    agree(np.asarray(model.encode_query(TEXTS).to_dense()), wanted.encode_query(TEXTS).to_dense())
    model.save_pretrained(tmp_path / "saved")
    for engine in (oracle, st_core):
        saved = engine.SparseEncoder(str(tmp_path / "saved"), device="cpu")
        agree(np.asarray(saved.encode_query(TEXTS).to_dense()), wanted.encode_query(TEXTS).to_dense())


def test_modules_of_a_loaded_model_are_taken(checkpoints, agree):
    """As parts of another model."""
    loaded = checkpoints.load(st_core, DENSE, "bert-mean")
    agree(numbers(built(st_core, DENSE, list(loaded))), numbers(loaded))


@pytest.mark.parametrize(
    ("kind", "options"), [(CROSS, {"num_labels": 3}), (CROSS, {"num_labels": 1}), (SPARSE, {"init_head": True})]
)
def test_a_new_head_is_drawn_as_theirs_and_named_untrained(checkpoints, agree, caplog, tmp_path, kind, options):
    """With torch's seed; the saved model has the same numbers on both sides.

    Theirs adds a sparse autoencoder to an encoder without a head, so that its modules are given.
    """
    folder = str(checkpoints.transformer("bert"))
    torch.manual_seed(11)
    with caplog.at_level(logging.WARNING, "st_core"):
        model = getattr(st_core, kind)(folder, device="cpu", **options)
    torch.manual_seed(11)
    if kind == CROSS:
        wanted = oracle.CrossEncoder(folder, device="cpu", **options)
    else:
        mlm, splade = theirs(["MLMTransformer", "SpladePooling"])
        wanted = built(oracle, SPARSE, [mlm(folder), splade()])

    agree(numbers(model), numbers(wanted))
    assert "the new head is untrained" in caplog.text
    model.save_pretrained(tmp_path / "saved")
    for engine in (oracle, st_core):
        agree(numbers(getattr(engine, kind)(str(tmp_path / "saved"), device="cpu")), numbers(model))


@pytest.mark.parametrize("kind", [CROSS, SPARSE])
def test_a_missing_head_is_refused_unless_asked_for(checkpoints, kind):
    """Random numbers are not given out as results."""
    with pytest.raises(st_core.ModelUnsupported, match=r"to train .*, pass init_head=True"):
        getattr(st_core, kind)(str(checkpoints.transformer("bert")), device="cpu")


def test_a_head_that_is_there_stays(checkpoints, agree):
    """Asking for one changes nothing."""
    folder = str(checkpoints.transformer("bert", "ForMaskedLM"))
    wanted = st_core.SparseEncoder(folder, device="cpu")
    agree(numbers(st_core.SparseEncoder(folder, device="cpu", init_head=True)), numbers(wanted))


@pytest.mark.long
def test_a_made_model_is_copied_pickled_and_removed(checkpoints):
    """Its files live as long as a model or a copy of it."""
    model = st_core.SparseEncoder(str(checkpoints.transformer("bert")), device="cpu", init_head=True)
    folder, wanted = model.checkpoint.folder, numbers(model)
    copied = copy.deepcopy(model)
    np.testing.assert_array_equal(numbers(pickle.loads(pickle.dumps(model))), wanted)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_allclose(pool.submit(numbers, model).result(), wanted, atol=1e-6)
    del model
    gc.collect()
    np.testing.assert_array_equal(numbers(copied), wanted)
    assert folder.is_dir()
    del copied
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "needs the name or the folder of a model, or modules"),
        ({"model_name_or_path": "builtin:dense", "modules": [models.Normalize()]}, ValueError, "pass one"),
        ({"modules": []}, ValueError, "modules is empty"),
        ({"modules": [torch.nn.Linear(2, 2)]}, TypeError, r"modules contains a torch.nn.modules.linear.Linear"),
        ({"modules": [models.Normalize()]}, st_core.ModelBroken, "expected a first module that reads text"),
    ],
)
def test_what_is_no_model_is_refused(arguments, error, words):
    """By what was given."""
    with pytest.raises(error, match=words):
        st_core.SentenceTransformer(**arguments)


@pytest.mark.parametrize("family", ["sentence_transformer", "sparse_encoder", "cross_encoder"])
def test_module_classes_have_their_import_paths(family):
    """Each of theirs is there, or says what to use."""
    ours, wanted = (import_module(f"{package}.{family}.modules") for package in ("st_core", "sentence_transformers"))
    for name in wanted.__all__:
        try:
            assert getattr(ours, name) is getattr(models, name)
        except ImportError as error:
            assert str(error).startswith(f"{name}: ")  # noqa: PT017 - most names raise nothing


@pytest.mark.parametrize("name", ["CLIPModel", "CNN", "LSTM", "BoW", "WordEmbeddings", "WordWeights"])
def test_a_module_class_that_cannot_be_built_can_be_imported(name):
    """So that a file with such an import runs, until it calls the class."""
    with pytest.raises(st_core.ModelUnsupported, match=f"a {name} cannot be built here: .*sentence-transformers"):
        getattr(models, name)(3, 4)


def test_a_module_class_that_cannot_be_built_recognises_modules(checkpoints):
    """Those of checkpoints."""
    model = checkpoints.load(st_core, DENSE, "words-cnn")
    assert [isinstance(each, models.CNN) for each in model] == [False, True, False]
    assert isinstance(model[0], models.WordEmbeddings)
    assert not isinstance(model[0], models.CLIPModel)


def test_module_classes_recognise_the_modules_of_a_model(checkpoints):
    """Although a call returns another class."""
    model = checkpoints.load(st_core, DENSE, "bert-mean")
    assert isinstance(model[0], models.Transformer)
    assert isinstance(model[1], models.Pooling)
    assert not isinstance(model[1], models.Transformer)
