"""The process of a contender.

It loads the model once and then runs rounds: it receives texts and returns seconds, output and peak memory.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.contenders import BARE, Contender
from bench.machine import wait_for

__all__ = ["Process"]

VOCABULARY = 30_522
"""Vocabulary size of every timed model."""


class Process:
    """A contender in a process of its own, with its model loaded."""

    def __init__(self, contender: Contender, kind: str, method: str, folder: Path) -> None:
        """Start the process and wait until it is ready; raise RuntimeError if it cannot load the model."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs, contender, kind, method, str(folder)), daemon=True)
        self._process.start()
        theirs.close()
        self.contender = contender
        self._answer()

    def _answer(self) -> Any:
        try:
            good, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.contender.name}: the process ended unexpectedly") from None
        if not good:
            raise RuntimeError(f"{self.contender.name}: {answer}")
        return answer

    def run(self, order: str, inputs: Sequence[Any]) -> Any:
        """Send an order, the name of a function in this file, and return its result."""
        self._pipe.send((order, inputs))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def _live(pipe: Any, contender: Contender, kind: str, method: str, folder: str) -> None:
    """Run a contender: load its model, then answer orders until the connection closes."""
    try:
        device = contender.device
        call = _bare(folder, device) if contender.name == BARE else _call(contender, kind, method, folder)
        pipe.send((True, None))
        resting = 0.0
        while True:
            order, inputs = pipe.recv()
            if order == "tune":
                call, answer = _tuned(call, contender.sizes, inputs)
            elif order == "growth":
                resting = resting or _taken(device)  # memory that an allocator keeps after a round counts as growth
                answer = growth(call, inputs, device, resting)
            else:
                answer = ORDERS[order](call, inputs, device)
            pipe.send((True, answer))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - sent to the waiting process
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _call(contender: Contender, kind: str, method: str, folder: str) -> Any:
    model = getattr(import_module(contender.engine), kind)(folder, **contender.load)
    function = getattr(model, method)
    return _waited(lambda inputs, **more: function(inputs, **{**contender.call, **more}), contender.device)


def _waited(call: Any, device: str) -> Any:
    """Return a call that waits until the device has finished."""

    def waited(inputs: Any, **more: Any) -> Any:
        output = call(inputs, **more)
        wait_for(device)
        return output

    return waited


def _bare(folder: str, device: str) -> Any:
    """Return the library's forward pass alone; tokenization and transfer to the device are not timed."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval().to(device)

    def forward(ready: Any) -> None:
        with torch.inference_mode():
            model(**ready)

    call = _waited(forward, device)
    call.prepare = lambda text: tokenizer(text, truncation=True, return_tensors="pt").to(device)
    return call


def _tuned(call: Any, sizes: Sequence[int], inputs: Sequence[Any]) -> tuple[Any, int]:
    """Return the call with the fastest of some batch sizes, each the better of two runs, and that size."""
    best = min(sizes, key=lambda size: min(_seconds(lambda: call(inputs, batch_size=size)) for _ in range(2)))
    return (lambda texts: call(texts, batch_size=best)), best


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def together(call: Any, inputs: Sequence[Any], device: str) -> dict[str, Any]:
    """Return the seconds for all inputs in one call, and its output."""
    began = time.perf_counter()
    output = call(inputs)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "output": compact(output), "peak_mb": _most(device)}


def singly(call: Any, inputs: Sequence[Any], device: str) -> dict[str, Any]:
    """Return the median seconds per input with one input per call, and the stacked outputs."""
    prepare = getattr(call, "prepare", lambda text: text)
    ready = [prepare(text) for text in inputs]
    times, outputs = [], []
    for each in ready:
        began = time.perf_counter()
        output = call(each)
        times.append(time.perf_counter() - began)
        outputs.append(output)
    packed = None if outputs[0] is None else np.concatenate([np.atleast_2d(compact(output)) for output in outputs])
    return {"seconds": float(np.median(times)), "output": packed, "peak_mb": _most(device)}


def growth(call: Any, inputs: Sequence[Any], device: str, resting: float) -> dict[str, Any]:
    """Return the peak megabytes above ``resting`` during one call with all inputs; on Linux or a GPU."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    else:
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    output = call(inputs)
    most = _most(device)
    return {"growth_mb": most - resting, "output": compact(output), "peak_mb": most}


ORDERS = {"singly": singly, "together": together}


def _taken(device: str) -> float:
    """Return the memory of the process in megabytes, or that on the GPU."""
    if device == "cpu":
        return _status("VmRSS")
    import torch

    return torch.cuda.memory_reserved(device) / 2**20


def _most(device: str) -> float:
    """Return the peak memory in megabytes."""
    if device == "cpu":
        return _status("VmHWM")
    import torch

    return torch.cuda.max_memory_reserved(device) / 2**20


def _status(key: str) -> float:
    """Return a line of the process's status in megabytes; 0 if the system has none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def compact(output: Any) -> Any:
    """Return output of any engine as a float32 array, with sparse vectors as dense ones."""
    if isinstance(output, list):  # fastembed's sparse vectors
        return np.stack([_row(each) for each in output])
    if hasattr(output, "is_sparse"):
        output = (output.to_dense() if output.is_sparse else output).float().cpu().numpy()
    if type(output).__name__ == "SparseVector":
        return _row(output)
    return np.asarray(output.to_dense() if hasattr(output, "to_dense") else output, np.float32)


def _row(vector: Any) -> Any:
    """Return indices and values of a sparse vector as one dense row."""
    row = np.zeros(VOCABULARY, np.float32)
    row[vector.indices] = vector.values
    return row
