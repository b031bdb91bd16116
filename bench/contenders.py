"""Who is timed, and the process each of them lives in.

A contender is a line in ``CONTENDERS``: a package with sentence-transformers' class names, and the arguments that make it this contender.
Its process loads the model once and then answers rounds: it gets texts and sends back seconds, its output and its peak memory.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BARE", "CONTENDERS", "THEIRS", "Contender", "Process"]


@dataclass(frozen=True, slots=True)
class Contender:
    """``load`` goes to the model's constructor, ``call`` to every call. ``bits`` 8 is held to the looser parity of int8.

    ``sizes`` are batch sizes of which the fastest is found first, on texts of no round. ``works`` names what it takes part in.
    """

    name: str
    engine: str
    load: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    bits: int = 32
    sizes: tuple[int, ...] = ()
    works: frozenset[str] = frozenset()

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in (self.engine, *self.needs) if find_spec(package) is None]


THEIRS = "sentence-transformers"
BARE = "bare forward pass"
CPU = {"device": "cpu"}
VOCABULARY = 30_522
"""Word pieces of every model that is timed."""

THROUGHPUT = frozenset({"dense", "splade", "pairs"})
TRANSFORMER = THROUGHPUT | {"query", "start", "splade-memory"}
STATIC = frozenset({"sparse-query", "sparse-queries", "static", "start-static"})

CONTENDERS = (
    Contender(THEIRS, "sentence_transformers", CPU, works=TRANSFORMER | STATIC),
    Contender(f"{THEIRS}, best size", "sentence_transformers", CPU, sizes=(8, 16, 32, 64), works=THROUGHPUT),
    Contender("st_core torch", "st_core", CPU, needs=("torch",), works=TRANSFORMER),
    *(
        Contender(
            f"st_core {backend} {dtype}",
            "st_core",
            {"backend": backend, "dtype": dtype},
            {},
            (package,),
            bits,
            (),
            works,
        )
        for backend, package in (("openvino", "openvino"), ("onnx", "onnxruntime"))
        for dtype, bits, works in (("float32", 32, TRANSFORMER), ("int8", 8, THROUGHPUT | {"splade-memory"}))
    ),
    Contender("st_core numpy", "st_core", CPU, works=STATIC),
    Contender(BARE, "transformers", needs=("torch",), works=frozenset({"query"})),
)
"""The first is what all others are compared with."""


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
        call = _bare(folder) if contender.name == BARE else _call(contender, kind, method, folder)
        pipe.send((True, None))
        resting = 0.0
        while True:
            order, inputs = pipe.recv()
            if order == "tune":
                call, answer = _tuned(call, contender.sizes, inputs)
            elif order == "growth":
                resting = resting or _status("VmRSS")  # what an allocator keeps after a round is part of the growth
                answer = growth(call, inputs, resting)
            else:
                answer = ORDERS[order](call, inputs)
            pipe.send((True, answer))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - sent to who waits for an answer
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _call(contender: Contender, kind: str, method: str, folder: str) -> Any:
    model = getattr(import_module(contender.engine), kind)(folder, **contender.load)
    function = getattr(model, method)
    return lambda inputs, **more: function(inputs, **{**contender.call, **more})


def _bare(folder: str) -> Any:
    """The library's forward pass alone; a text is tokenised before its time is taken."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()

    def call(ready: Any) -> None:
        with torch.inference_mode():
            model(**ready)

    call.prepare = lambda text: tokenizer(text, truncation=True, return_tensors="pt")  # type: ignore[attr-defined]
    return call


def _tuned(call: Any, sizes: Sequence[int], inputs: Sequence[Any]) -> tuple[Any, int]:
    """The call with the fastest of some batch sizes, the better of two runs each, and that size."""
    best = min(sizes, key=lambda size: min(_seconds(lambda: call(inputs, batch_size=size)) for _ in range(2)))
    return (lambda texts: call(texts, batch_size=best)), best


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def together(call: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Seconds for all inputs in one call, and its output."""
    began = time.perf_counter()
    output = call(inputs)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "output": compact(output), "peak_mb": _status("VmHWM")}


def singly(call: Any, inputs: Sequence[Any]) -> dict[str, Any]:
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
    return {"seconds": float(np.median(times)), "output": packed, "peak_mb": _status("VmHWM")}


def growth(call: Any, inputs: Sequence[Any], resting: float) -> dict[str, Any]:
    """How many megabytes more than ``resting`` the process takes at most while it works on all inputs in one call; Linux only."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    output = call(inputs)
    most = _status("VmHWM")
    return {"growth_mb": most - resting, "output": compact(output), "peak_mb": most}


ORDERS = {"singly": singly, "together": together}


def _status(key: str) -> float:
    """A line of the process's own status in megabytes; 0 where the system keeps none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def compact(output: Any) -> Any:
    """Output of either engine as an array, sparse vectors as a dense one."""
    if hasattr(output, "is_sparse"):
        output = (output.to_dense() if output.is_sparse else output).cpu().numpy()
    if type(output).__name__ == "SparseVector":
        row = np.zeros(VOCABULARY, np.float32)
        row[output.indices] = output.values
        return row
    return output.to_dense() if hasattr(output, "to_dense") else np.asarray(output)
