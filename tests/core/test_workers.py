"""Several processes give the numbers of one, in order, whatever happens to them."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest

import st_core
from st_core.processes import pool as workers
from st_core.processes.pool import WorkerPool, cores_of

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

pytestmark = [pytest.mark.torch, pytest.mark.long]


class Deadly(str):
    """A prompt whose arrival ends the process that it arrives in."""

    __slots__ = ()

    def __reduce__(self):
        return os._exit, (3,)


@pytest.fixture(scope="module")
def model(checkpoints):
    """A dense model on torch."""
    return checkpoints.load(st_core, "SentenceTransformer", "bert-mean")


@pytest.fixture(scope="module")
def light(checkpoints):
    """A model that needs no torch, whose workers start in a moment: a pool does not ask what its model is."""
    return checkpoints.load(st_core, "SentenceTransformer", "static")


@pytest.fixture(scope="module")
def shared_pool(model):
    """Two workers for the model."""
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    yield pool
    model.stop_multi_process_pool(pool)


@pytest.fixture
def some(texts):
    """Texts of all kinds, none of them huge."""
    return [text for text in texts if len(text) < 1000] * 2


def test_dense_vectors_are_those_of_one_process(model, shared_pool, some, agree):
    """Prompt, width, normalisation and the kind of the result hold in the workers."""
    wishes = {"prompt_name": "query", "truncate_dim": 20, "normalize_embeddings": True}

    found = model.encode(some, pool=shared_pool, chunk_size=3, **wishes)
    tensors = model.encode(some, pool=shared_pool, chunk_size=5, convert_to_tensor=True)
    tokens = model.encode(some, pool=shared_pool, chunk_size=5, output_value="token_embeddings")

    agree(found, model.encode(some, **wishes), 1e-6)
    agree(tensors.numpy(), model.encode(some), 1e-6)
    for one, other in zip(tokens, model.encode(some, output_value="token_embeddings"), strict=True):
        agree(one.numpy(), other.numpy(), 1e-6)
    agree(model.encode(some[0], pool=shared_pool), model.encode(some[0]), 1e-6)
    assert model.encode([], pool=shared_pool).shape == (0,)


@pytest.mark.parametrize("name", ["splade-max", "sparse-static"])
def test_sparse_vectors_are_those_of_one_process(checkpoints, some, agree, name):
    """A list of devices starts workers for the one call; a static model needs no torch in them."""
    model = checkpoints.load(st_core, "SparseEncoder", name)

    found = model.encode(some, device=["cpu", "cpu"], max_active_dims=7)

    agree(found.to_dense(), model.encode(some, max_active_dims=7).to_dense(), 1e-6)


def test_scores_are_those_of_one_process(checkpoints, some, agree):
    """A cross-encoder's pairs go through workers too, and documents keep their places."""
    model = checkpoints.load(st_core, "CrossEncoder", "rerank-bert")
    pairs = [("copy a tree", text) for text in some]

    with model.start_multi_process_pool(["cpu", "cpu"]) as pool:
        found = model.predict(pairs, pool=pool)
        with pytest.raises(ValueError, match="cannot be sent"):
            model.predict(pairs, pool=pool, activation_fn=lambda scores: scores)

    agree(found, model.predict(pairs), 1e-6)


def test_work_that_kills_every_worker_is_given_up(light, some):
    """After so many tries, with the exit code; the pool is stopped then."""
    with light.start_multi_process_pool(["cpu", "cpu"]) as pool:
        with pytest.raises(RuntimeError, match=r"died 4 times, the last on cpu with exit code 3"):
            light.encode(some, pool=pool, prompt=Deadly())
        with pytest.raises(RuntimeError, match="stopped"):
            light.encode(some, pool=pool)


def test_settings_made_since_loading_reach_the_workers(checkpoints, some, agree):
    """The maximum length and the pooling of prompts are those of when the pool started."""
    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    plain = model.encode(some, prompt="query: ")
    model.max_seq_length = 5
    model.set_pooling_include_prompt(False)

    found = model.encode(some, prompt="query: ", device=["cpu"])

    agree(found, model.encode(some, prompt="query: "), 1e-6)
    assert np.abs(found - plain).max() > 1e-3


def test_a_killed_worker_is_replaced_and_its_work_done_again(light, some, agree, monkeypatch):
    """The first worker is stopped before it can answer, and killed when the second one has answered."""
    alone = light.encode(some)
    with light.start_multi_process_pool(["cpu", "cpu"]) as pool:
        victim = pool._workers[0].process.pid
        os.kill(victim, signal.SIGSTOP)
        held = []

        @contextmanager
        def killing(_total, _wanted):
            def advance(_count):
                if not held:
                    held.append(len(pool._workers[0].unanswered))
                    os.kill(victim, signal.SIGKILL)

            yield advance

        monkeypatch.setattr(workers, "progress", killing)
        found = light.encode(some, pool=pool, chunk_size=2)

        assert held == [workers.AHEAD]
        assert victim not in [worker.process.pid for worker in pool._workers]
        agree(found, alone, 1e-6)
        agree(light.encode(some, pool=pool), alone, 1e-6)


def test_what_a_worker_raises_is_raised_and_the_pool_goes_on(model, shared_pool, some, agree):
    """The type and the message are the same as without workers, and later answers are not mixed with earlier ones."""
    too_long = {"processing_kwargs": {"truncation": False}}
    with pytest.raises(Exception, match="does not fit") as alone:
        model.encode([*some, "word " * 500], **too_long)

    with pytest.raises(type(alone.value), match="does not fit") as raised:
        model.encode(["word " * 500, *some], pool=shared_pool, chunk_size=1, **too_long)

    assert str(raised.value) == str(alone.value)
    agree(model.encode(some, pool=shared_pool, chunk_size=1), model.encode(some), 1e-6)


def test_devices_are_looked_at_before_a_process_is_started(exports, model, monkeypatch):
    """One that there is not is the error that loading there gives.

    Graphs run on the processor alone, also in the model's own process.
    """
    monkeypatch.setattr(WorkerPool, "_start", None)
    graph = st_core.SentenceTransformer(exports.folder("distilbert-cls", "onnx"), backend="onnx")

    for device in ("nowhere", "cuda:99"):
        with pytest.raises(ValueError, match=f"no device '{device}'|unknown device '{device}'"):
            model.encode(["a"], device=["cpu", device])
    for device in ("cuda", ["cpu", "cuda"]):
        with pytest.raises(ValueError, match="backend='onnx' runs on the cpu, not on 'cuda'"):
            graph.encode(["a"], device=device)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=str)
def test_a_device_that_stands_alone_is_one(light, device):
    """A name is no list of letters."""
    with light.start_multi_process_pool(device) as pool:
        assert len(pool._workers) == 1
        assert pool._workers[0].device == "cpu"


def test_a_worker_that_dies_at_its_start_is_told_with_its_exit_code(light, monkeypatch):
    """Nobody waits for a process that is gone."""
    monkeypatch.setattr("st_core.model.Recipe.of", lambda _: Deadly())

    with pytest.raises(RuntimeError, match=r"worker on cpu ended with exit code 3 before it was ready"):
        light.start_multi_process_pool(["cpu", "cpu"])


def test_a_pool_stops_once_and_leaves_no_process(light):
    """Stopping twice is no error; the processes are gone after the first time."""
    pool = light.start_multi_process_pool(["cpu"])
    pid = pool._workers[0].process.pid

    light.stop_multi_process_pool(pool)
    light.stop_multi_process_pool(pool)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_pool_refuses_what_it_was_not_made_for(checkpoints, model, shared_pool):
    """Another model's pool, no pool at all, chunks of nothing, no devices, and a second thread are told apart."""
    other = checkpoints.load(st_core, "SentenceTransformer", "static")

    with pytest.raises(ValueError, match="another model"):
        other.encode(["a"], pool=shared_pool)
    with pytest.raises(TypeError, match="start_multi_process_pool"):
        model.encode(["a"], pool={"processes": []})
    with pytest.raises(ValueError, match="chunk_size"):
        model.encode(["a"], pool=shared_pool, chunk_size=0)
    with pytest.raises(ValueError, match="at least one device"):
        model.start_multi_process_pool([])
    with shared_pool._lock, pytest.raises(RuntimeError, match="another thread"):
        model.encode(["a"], pool=shared_pool)


def test_workers_share_out_the_cores(monkeypatch):
    """Each worker on the CPU has its own cores where there are enough; others have none set."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 7}, raising=False)

    assert [cores_of(place, ["cpu", "cuda:0", "cpu"]) for place in range(3)] == [(0, 1), (), (2, 5)]
    assert [cores_of(place, ["cpu"] * 6) for place in range(6)] == [(0,), (1,), (2,), (5,), (7,), (0,)]
