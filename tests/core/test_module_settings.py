"""Settings of modules (``model[1].pooling_mode``): the numbers of sentence-transformers with the same setting."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 - after the guard
from st_core.module_view import module_of  # noqa: E402 - after the guard
from st_core.modules.pooling import Pooling  # noqa: E402 - after the guard
from st_core.modules.transformer import Transformer  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

TEXTS = ["How do I copy a directory tree?", "a", "Parse a DATE string"]
DENSE, SPARSE = "SentenceTransformer", "SparseEncoder"


def both(checkpoints, kind, name):
    """A model of each library that no other test uses."""
    folder = str(checkpoints.folder(name))
    return getattr(oracle, kind)(folder, device="cpu"), getattr(st_core, kind)(folder, device="cpu")


@pytest.mark.parametrize(
    ("kind", "name", "place", "setting", "values"),
    [
        (DENSE, "bert-mean", 1, "pooling_mode", ["cls", "max", ("mean", "lasttoken"), "weightedmean"]),
        (DENSE, "bert-no-prompt", 1, "include_prompt", [True, False]),
        (DENSE, "distilbert-cls", 2, "activation_function", [torch.nn.Identity(), torch.nn.ReLU()]),
        (SPARSE, "splade-max", 1, "pooling_strategy", ["sum", "max"]),
        (SPARSE, "splade-max", -1, "activation_function", ["log1p_relu"]),
        (SPARSE, "csr", 2, "k", [3, 11]),
        (DENSE, "bert-mean", 0, "max_seq_length", [4, 9]),
    ],
)
def test_a_setting_has_the_effect_that_it_has_there(checkpoints, agree, kind, name, place, setting, values):
    """On the next call, and again after another value."""
    theirs, ours = both(checkpoints, kind, name)
    before = np.asarray(ours.encode(TEXTS, prompt="a prompt: ", **dense_form(kind)))
    for value in values:
        setattr(theirs[place], setting, value)
        setattr(ours[place], setting, value)
        if kind == SPARSE and setting == "k":
            theirs.max_active_dims = ours.max_active_dims = value
        results = ours.encode(TEXTS, prompt="a prompt: ", **dense_form(kind))
        agree(results, theirs.encode(TEXTS, prompt="a prompt: ", **dense_form(kind)), 2e-5)
        if setting != "activation_function":
            assert getattr(ours[place], setting) == value
        before = changed_from(before, results)


def dense_form(kind):
    """The arguments with which an encoder returns dense tensors."""
    return {} if kind == DENSE else {"convert_to_tensor": True, "convert_to_sparse_tensor": False}


def changed_from(before, results):
    """The results as an array; they must differ from those before."""
    array = np.asarray(results)
    assert array.shape != before.shape or np.abs(array - before).max() > 1e-4
    return array


def test_the_route_without_a_task_and_lengths_of_tasks(checkpoints, agree):
    """Settings of a router and of a transformer."""
    theirs, ours = both(checkpoints, DENSE, "late-routes")
    for route in ("query", "document"):
        theirs[2].default_route = ours[2].default_route = route
        agree(ours.encode(TEXTS), theirs.encode(TEXTS))
    theirs[0].query_length = ours[0].query_length = 4
    assert ours[0].query_length == 4
    agree(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    agree(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))


def test_a_value_that_a_setting_does_not_have_is_refused(checkpoints):
    """The setting stays as it was."""
    _, ours = both(checkpoints, DENSE, "late-routes")
    with pytest.raises(ValueError, match="pooling_mode is 'median'; expected one or more of cls, max, mean"):
        ours[1].pooling_mode = "median"
    with pytest.raises(ValueError, match="default_route is 'x'; expected one of"):
        ours[2].default_route = "x"
    with pytest.raises(ValueError, match="query_length must be a positive integer"):
        ours[0].query_length = -1
    with pytest.raises(ValueError, match="expected a module of torch"):
        ours[2].sub_modules["query"][0].activation_function = len
    with pytest.raises(ValueError, match="has no arguments"):
        ours[2].sub_modules["query"][0].activation_function = torch.nn.LeakyReLU(0.3)
    assert (ours[1].pooling_mode, ours[2].default_route) == ("mean", "document")


def test_a_setting_of_a_module_in_a_route(checkpoints, agree):
    """It holds for the route only."""
    theirs, ours = both(checkpoints, DENSE, "late-routes")
    theirs[2].sub_modules["query"][0].activation_function = torch.nn.Identity()
    ours[2].sub_modules["query"][0].activation_function = torch.nn.Identity()

    agree(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    agree(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))


def test_a_setting_reaches_copies_workers_and_files(checkpoints, agree, tmp_path):
    """And a copy has its own afterwards."""
    _, ours = both(checkpoints, DENSE, "bert-mean")
    ours[1].pooling_mode = "max"
    wanted = ours.encode(TEXTS)

    ours.save_pretrained(tmp_path)
    for model in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), st_core.SentenceTransformer(str(tmp_path))):
        agree(model.encode(TEXTS), wanted)
        model[1].pooling_mode = "cls"
        agree(ours.encode(TEXTS), wanted)
    agree(oracle.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), wanted)


def test_weights_are_not_loaded_again_for_a_setting(checkpoints):
    """The transformer of before computes on."""
    _, ours = both(checkpoints, DENSE, "bert-mean")
    ours.encode(TEXTS)
    before = ours._engine.factory.torch.transformer(ours._engine.modules[0]).ready().model
    ours[1].pooling_mode = "max"
    ours[0].query_length = 4

    assert ours._engine.factory.torch.transformer(ours._engine.modules[0]).ready().model is before


def test_modules_read_as_theirs(checkpoints):
    """Names of both libraries; for ``isinstance`` a module is one of its class."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")

    assert isinstance(ours[0], Transformer)
    assert isinstance(ours[1], Pooling)
    assert [type(each).__name__ for each in ours] == [type(each).__name__ for each in theirs]
    assert repr(ours[1]) == repr(theirs[1])
    assert ours[1].get_config_dict() == theirs[1].get_config_dict()
    for name in ("pooling_mode", "embedding_dimension", "include_prompt"):
        assert getattr(ours[1], name) == getattr(theirs[1], name)
    assert ours[1].get_embedding_dimension() == theirs[1].get_embedding_dimension()
    for name in ("max_seq_length", "do_lower_case", "transformer_task", "module_output_name"):
        assert getattr(ours[0], name) == getattr(theirs[0], name)
    assert type(ours[0].auto_model) is type(theirs[0].auto_model)
    assert ours[0].config.hidden_size == theirs[0].config.hidden_size
    assert ours[0].tokenizer is ours.tokenizer
    assert ours._first_module() == ours[0]
    assert ours[-1] == ours._last_module() == list(ours)[-1]
    assert len(ours[:2]) == 2
    assert module_of(pickle.loads(pickle.dumps(ours[1]))) == module_of(ours[1])
    with pytest.raises(IndexError):
        ours[9]
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ours[1].no_such_name
