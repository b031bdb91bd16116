"""Loading starts no threads: weights are packed and forward passes compared once, when a model is first used."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

from st_core import ModelBroken, SentenceTransformer  # noqa: E402 - after the guard
from st_core.backends.torch import backend as torch_backend  # noqa: E402 - after the guard
from st_core.backends.torch.once import Once  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

LARGE = {"hidden_size": 256, "intermediate_size": 1024}
"""Tensors large enough for torch to compute with them in threads."""

LOAD_AND_FORK = """
import json, os, select, sys
import numpy as np, torch
import st_core

kind, folder, method, inputs = sys.argv[1:]
threads = lambda: len(os.listdir("/proc/self/task"))

def answer():
    value = getattr(model, method)(json.loads(inputs))
    return np.asarray(value.to_dense() if hasattr(value, "to_dense") else value).tolist()

counts = [threads()]
model = getattr(st_core, kind)(folder, device="cpu")
counts.append(threads())
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, json.dumps(answer()).encode())
    os._exit(0)
os.close(writing)
found = select.select([reading], [], [], 100)[0]
if not found:
    os.kill(child, 9)
with os.fdopen(reading) as file:
    answers = [json.load(file) if found else None, answer()]
print(json.dumps({"counts": counts, "answers": answers}))
"""
"""Counts threads before and after loading; forks before the first use and waits for the child's answer."""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize(
    ("kind", "head", "method", "inputs"),
    [
        ("SentenceTransformer", "Model", "encode", ["copy a tree", "a longer text about directories"]),
        ("SparseEncoder", "ForMaskedLM", "encode", ["copy a tree", "a longer text about directories"]),
        ("CrossEncoder", "ForSequenceClassification", "predict", [["a tree", "copy it"], ["a tree", "boil an egg"]]),
    ],
)
def test_a_process_that_loaded_a_model_can_be_forked(checkpoints, kind, head, method, inputs):
    """Loading starts no threads that a child would wait for; child and parent give the same answers."""
    folder = checkpoints.transformer("bert", head, **LARGE)
    arguments = [kind, str(folder), method, json.dumps(inputs)]
    done = subprocess.run([sys.executable, "-c", LOAD_AND_FORK, *arguments], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    before, loaded = result["counts"]

    assert loaded == before
    assert result["answers"][0] == result["answers"][1]


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
