"""The process that a contender lives in.

It loads the model once and then answers rounds: it gets texts and sends back seconds, its output and its peak memory.
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
"""Word pieces of every model that is timed."""


class Process:
    """A contender in a process of its own, with its model loaded."""

    def __init__(self, contender: Contender, kind: str, method: str, folder: Path) -> None:
        """Start it and wait until it is ready; raises RuntimeError with its reason where it cannot load the model."""
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
            raise RuntimeError(f"{self.contender.name}: its process ended") from None
        if not good:
            raise RuntimeError(f"{self.contender.name}: {answer}")
        return answer

    def run(self, order: str, inputs: Sequence[Any]) -> Any:
        """What ``order`` gives: a function of this file by name."""
        self._pipe.send((order, inputs))
        return self._answer()

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def _live(pipe: Any, contender: Contender, kind: str, method: str, folder: str) -> None:
    """A contender's life: load, then answer orders until nobody asks."""
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
                resting = resting or _taken(device)  # what an allocator keeps after a round is part of the growth
                answer = growth(call, inputs, device, resting)
            else:
                answer = ORDERS[order](call, inputs, device)
            pipe.send((True, answer))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - sent to who waits for an answer
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _call(contender: Contender, kind: str, method: str, folder: str) -> Any:
    model = getattr(import_module(contender.engine), kind)(folder, **contender.load)
    function = getattr(model, method)
    return _waited(lambda inputs, **more: function(inputs, **{**contender.call, **more}), contender.device)


def _waited(call: Any, device: str) -> Any:
    """The call, over when the device has done what was asked of it."""

    def waited(inputs: Any, **more: Any) -> Any:
        output = call(inputs, **more)
        wait_for(device)
        return output

    return waited


def _bare(folder: str, device: str) -> Any:
    """The library's forward pass alone; a text is tokenised and brought to the device before its time is taken."""
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
    """The call with the fastest of some batch sizes, the better of two runs each, and that size."""
    best = min(sizes, key=lambda size: min(_seconds(lambda: call(inputs, batch_size=size)) for _ in range(2)))
    return (lambda texts: call(texts, batch_size=best)), best


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def together(call: Any, inputs: Sequence[Any], device: str) -> dict[str, Any]:
    """Seconds for all inputs in one call, and its output."""
    began = time.perf_counter()
    output = call(inputs)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "output": compact(output), "peak_mb": _most(device)}


def singly(call: Any, inputs: Sequence[Any], device: str) -> dict[str, Any]:
    """The median of seconds for one input in a call, and the outputs, one below the other."""
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
    """How many megabytes more than ``resting`` the process takes at most while it works on all inputs in one call; Linux or a card."""
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
    """Megabytes that the process takes, of the card where it computes on one."""
    if device == "cpu":
        return _status("VmRSS")
    import torch

    return torch.cuda.memory_reserved(device) / 2**20


def _most(device: str) -> float:
    """The most megabytes that it has taken."""
    if device == "cpu":
        return _status("VmHWM")
    import torch

    return torch.cuda.max_memory_reserved(device) / 2**20


def _status(key: str) -> float:
    """A line of the process's own status in megabytes; 0 where the system keeps none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def compact(output: Any) -> Any:
    """Output of any engine as an array of float32, sparse vectors as a dense one."""
    if isinstance(output, list):  # fastembed's sparse vectors
        return np.stack([_row(each) for each in output])
    if hasattr(output, "is_sparse"):
        output = (output.to_dense() if output.is_sparse else output).float().cpu().numpy()
    if type(output).__name__ == "SparseVector":
        return _row(output)
    return np.asarray(output.to_dense() if hasattr(output, "to_dense") else output, np.float32)


def _row(vector: Any) -> Any:
    """A sparse vector's indices and values as one row."""
    row = np.zeros(VOCABULARY, np.float32)
    row[vector.indices] = vector.values
    return row
