"""Compare a pool of two workers on the CPU with that of sentence-transformers: start, speed and memory.

    python -m bench.workers [--rounds N] [--json]

Contenders take turns. "spawned" is this engine with workers that each load the model, as on systems that cannot fork.
Memory is the proportional share (``Pss``) of all processes below this one while they wait after the texts; Linux
only.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np

from bench.checkpoints import MAKERS
from bench.figures import report, spread
from bench.texts import texts

DEVICES = ["cpu", "cpu"]
WORKS = {"dense": ("minilm", "SentenceTransformer", 400), "splade": ("splade", "SparseEncoder", 64)}
FORKED, SPAWNED, THEIRS = "forked", "spawned", "sentence-transformers"


def below(root: int) -> Iterator[int]:
    """Return the child processes of a process."""
    for listed in Path(f"/proc/{root}/task").glob("*/children"):
        for child in map(int, listed.read_text("ascii").split()):
            yield child
            yield from below(child)


def taken_mb() -> float:
    """Return the megabytes of all processes below this one, with shared memory divided among them."""
    outputs = [Path(f"/proc/{pid}/smaps_rollup").read_text("ascii") for pid in below(os.getpid())]
    lines = [line for each in outputs for line in each.splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@contextmanager
def pool_of(model: Any, name: str) -> Iterator[Any]:
    """Yield a contender's pool, and stop it at the end."""
    with mock.patch("st_core.processes.pool.can_fork", return_value=name == FORKED):
        pool = model.start_multi_process_pool(DEVICES)
    try:
        yield pool
    finally:
        model.stop_multi_process_pool(pool)


def once(model: Any, name: str, inputs: list[str]) -> tuple[dict[str, float], Any]:
    """Return the seconds to start a pool and to encode with it once warm, its memory, and the vectors."""
    began = time.perf_counter()
    with pool_of(model, name) as pool:
        started = time.perf_counter() - began
        model.encode(inputs[:16], pool=pool)
        began = time.perf_counter()
        vectors = model.encode(inputs, pool=pool, chunk_size=max(1, len(inputs) // 16))
        return {"start_s": started, "encode_s": time.perf_counter() - began, "mb": taken_mb()}, vectors


def dense(vectors: Any) -> Any:
    """Return vectors of any kind as an array."""
    return np.asarray(vectors.to_dense() if hasattr(vectors, "to_dense") else vectors)


def measure(work: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Return the figures of a work by contender; raise RuntimeError if the outputs differ."""
    _, kind, count = WORKS[work]
    makers: dict[str, Callable[[], Any]] = {
        THEIRS: lambda: _loaded("sentence_transformers", kind, folder),
        SPAWNED: lambda: _loaded("st_core", kind, folder),
        FORKED: lambda: _loaded("st_core", kind, folder),
    }
    models = {name: make() for name, make in makers.items()}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for number in range(rounds):
        inputs = texts("mixed", count, number)
        outputs = {}
        for name, model in models.items():
            row, vectors = once(model, name, inputs)
            rows[name].append(row)
            outputs[name] = dense(vectors)
        if max(np.abs(outputs[THEIRS] - each).max() for each in outputs.values()) > 1e-5:
            raise RuntimeError("the vectors differ, so other work was timed")
    figures: dict[str, Any] = {}
    for name, answers in rows.items():
        for key in ("start_s", "encode_s", "mb"):
            figures[f"{work} {name} {key}"] = spread([answer[key] for answer in answers])
    for name in (SPAWNED, FORKED):
        pairs = zip(rows[THEIRS], rows[name], strict=True)
        figures[f"{work} {name} ratio"] = spread([theirs["encode_s"] / ours["encode_s"] for theirs, ours in pairs])
    return figures


def _loaded(package: str, kind: str, folder: Path) -> Any:
    from importlib import import_module

    return getattr(import_module(package), kind)(str(folder), device="cpu")


def main() -> int:
    """Measure both works."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description="Two workers, beside theirs.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with TemporaryDirectory() as root:
        for work, (checkpoint, *_) in WORKS.items():
            figures |= measure(work, MAKERS[checkpoint](Path(root)), options.rounds)
    return report(figures, {"splade forked mb": ("<", figures["splade spawned mb"]["median"])})


if __name__ == "__main__":
    raise SystemExit(main())
