"""CPU workers are forked from a process with the model: weights are in memory once; threads work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import connection
from pathlib import Path
from textwrap import dedent, indent

import pytest

from st_core import SentenceTransformer
from st_core.processes import pool as workers

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

pytestmark = [
    pytest.mark.long,
    pytest.mark.torch,
    pytest.mark.skipif(
        sys.platform != "linux", reason="workers are forked on Linux alone, and its /proc tells their memory"
    ),
]

WEIGHTS_MB = 50
"""Of the products that oneDNN has laid out anew, which no file could share."""


@pytest.fixture(scope="module")
def large(tmp_path_factory, checkpoints):
    """A model with random weights, large enough to be seen among what a process needs anyway.

    The vocabulary is a tiny checkpoint's.
    """
    from sentence_transformers import SentenceTransformer as Theirs
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoConfig, AutoTokenizer, BertModel

    tiny = checkpoints.folder("bert-mean")
    folder = tmp_path_factory.mktemp("large")
    config = AutoConfig.from_pretrained(
        tiny, hidden_size=512, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8
    )
    BertModel(config).save_pretrained(folder / "transformer")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder / "transformer")
    transformer = Transformer(str(folder / "transformer"))
    Theirs(modules=[transformer, Pooling(512, "mean")], device="cpu").save(str(folder / "model"))
    return SentenceTransformer(str(folder / "model"), device="cpu")


@pytest.fixture
def some(texts):
    """Texts of all kinds, none of them huge."""
    return [text for text in texts if len(text) < 1000] * 2


def own_mb(pid: int) -> float:
    """Megabytes that no other process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def test_workers_share_the_weights(large, some, agree):
    """What a worker has for itself is less than the weights that it has laid out for the processor."""
    with large.start_multi_process_pool(["cpu", "cpu"]) as pool:
        found = large.encode(some, pool=pool, chunk_size=2)
        own = [own_mb(worker.process.pid) for worker in pool._workers]

    agree(found, large.encode(some), 1e-6)
    assert max(own) < WEIGHTS_MB


def started(model, body: str) -> subprocess.Popen[str]:
    """A process of its own that has loaded the model and does ``body`` with it."""
    code = (
        f"import sys, numpy as np, st_core\n"
        "if __name__ == '__main__':\n"
        f"    model = st_core.SentenceTransformer({str(model.checkpoint.folder)!r}, "
        f"device='cpu')\n{indent(body, '    ')}"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_forked_worker_computes_with_several_threads(large):
    """The only worker has all cores. Threads that did not survive the fork would be waited for without an end."""
    body = """
        texts = ["copy a directory tree", "boil an egg"] * 40
        with model.start_multi_process_pool(["cpu"]) as pool:
            found = model.encode(texts, pool=pool)
        print(np.abs(found - model.encode(texts)).max(), flush=True)
    """
    with started(large, dedent(body)) as caller:
        try:
            told, _ = caller.communicate()
        finally:
            caller.kill()

    assert float(told) < 1e-6


def test_a_worker_is_replaced_after_the_process_it_was_forked_off_died(large, some, agree):
    """The workers go on without it, and the next that is needed gets another one."""
    with large.start_multi_process_pool(["cpu", "cpu"]) as pool:
        first = pool._server._process.pid
        os.kill(first, signal.SIGKILL)
        agree(large.encode(some, pool=pool, chunk_size=2), large.encode(some), 1e-6)
        assert len({first, pool._server._process.pid}) == 1

        os.kill(pool._workers[0].process.pid, signal.SIGKILL)
        agree(large.encode(some, pool=pool, chunk_size=2), large.encode(some), 1e-6)

        assert pool._server._process.pid != first
        assert len(pool._workers) == 2


def test_workers_end_with_their_caller_however_it_ends(large):
    """A caller that is killed leaves none of the processes it has started."""
    body = """
        pool = model.start_multi_process_pool(["cpu", "cpu"])
        print(pool._server._process.pid, *(each.process.pid for each in pool._workers), flush=True)
        sys.stdin.read()
    """
    with started(large, dedent(body)) as caller:
        processes = [os.pidfd_open(int(pid)) for pid in caller.stdout.readline().split()]
        caller.kill()

    assert len(processes) == 3
    for descriptor in processes:
        assert connection.wait([descriptor], 30), "a process is left"
        os.close(descriptor)


def test_where_nothing_can_be_forked_each_worker_loads_the_model(large, some, agree, monkeypatch):
    """Another system, or an old kernel."""
    monkeypatch.setattr(workers, "can_fork", lambda: False)
    with large.start_multi_process_pool(["cpu", "cpu"]) as pool:
        found = large.encode(some, pool=pool, chunk_size=2)
        assert pool._server is None

    agree(found, large.encode(some), 1e-6)
