"""Loading computes nothing: weights are packed and forward passes compared once, when a model is first used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

from st_core import ModelBroken, SentenceTransformer  # noqa: E402 - after the guard
from st_core.backends.torch import backend as torch_backend  # noqa: E402 - after the guard
from st_core.backends.torch.once import Once  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch


def test_threads_that_use_a_model_first_prepare_it_once(checkpoints, monkeypatch):
    """All but one wait, and all get the vectors."""
    prepared = []
    compare = torch_backend.has_same_first_token
    monkeypatch.setattr(
        torch_backend, "has_same_first_token", lambda *arguments: prepared.append(1) or compare(*arguments)
    )
    model = SentenceTransformer(checkpoints.folder("distilbert-cls"), device="cpu")
    start = Barrier(4)

    def encode(_):
        start.wait(timeout=60)
        return model.encode(["copy a tree"]).tolist()

    assert not prepared
    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(encode, range(4))

    assert prepared == [1]
    assert all(each == first for each in others)


def test_an_error_of_the_first_use_names_the_model(checkpoints, monkeypatch):
    """And the next use tries again."""
    calls = []
    accelerate = torch_backend.accelerate

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no room")
        return accelerate(*arguments, **options)

    monkeypatch.setattr(torch_backend, "accelerate", failing)
    model = SentenceTransformer(checkpoints.folder("mpnet-max"), device="cpu")

    with pytest.raises(ModelBroken, match=r"mpnet-max: the model cannot be run: no room"):
        model.encode(["copy a tree"])
    assert model.encode(["copy a tree"]).shape == (1, 10)


def test_a_value_is_computed_once_and_its_function_is_dropped():
    """With whatever the function holds, such as weights that are packed by then."""
    calls = []
    once = Once(lambda: calls.append(1) or "value")

    assert [once(), once()] == ["value", "value"]
    assert calls == [1]
    assert once._compute is None
