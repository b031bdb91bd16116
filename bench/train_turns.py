"""Train the same with two libraries, each in a process of its own, which take turns step by step.

A turn is everything that a training does for a step: it reads and tokenizes a batch, computes loss and gradients, and
changes the weights. Only one of the two computes at a time, so that both meet the same conditions. Dropout is off, so
that their losses are equal.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["OURS", "THEIRS", "Side", "both_trained", "trainer_of"]

OURS, THEIRS = "st_core", "sentence_transformers"

LOSSES = {
    "SentenceTransformer": "sentence_transformer.losses",
    "SparseEncoder": "sparse_encoder.losses",
    "CrossEncoder": "cross_encoder.losses",
}
"""The module of losses by the kind of model, in both packages."""

Make = Callable[..., tuple[Any, Callable[[], Any]]]
"""Returns a trainer of a package, and a function that is called after the training and whose result is passed on."""


def trainer_of(
    package: str,
    kind: str,
    folder: str,
    rows: Sequence[Mapping[str, Any]],
    loss: Callable[[ModuleType, Any], Any],
    **arguments: Any,
) -> Any:
    """Return the trainer of a package for the checkpoint of a kind of model.

    ``loss`` is called with the package's module of losses of that kind and the model; ``arguments`` are those of the
    training, beside the ones that write no checkpoints and log every loss.
    """
    library = import_module(package)
    model = getattr(library, kind)(folder, device="cpu")
    data: Any = rows
    if package == THEIRS:
        from datasets import Dataset

        data = Dataset.from_list(list(rows))
    fixed = {"logging_steps": 1, "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    return getattr(library, f"{kind}Trainer")(
        model=model,
        args=getattr(library, f"{kind}TrainingArguments")(**fixed, **arguments),
        train_dataset=data,
        loss=loss(import_module(f"{package}.{LOSSES[kind]}"), model),
    )


@dataclass(frozen=True, slots=True)
class Side:
    """What the training of one library took: the seconds and the loss of every step, and the growth of its memory.

    ``megabytes`` are the largest resident memory during the training above the one before it, when the model is
    loaded: gradients, the optimizer's state, activations. ``result`` is that of the function after the training.
    """

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    megabytes: float = 0.0
    result: Any = None


def both_trained(make: Make, arguments: Mapping[str, Any], steps: int, *, is_cpu: bool = False) -> dict[str, Side]:
    """Return both sides of a training of some steps.

    ``make``, a function of a module, is called in each process with the name of the package, ``steps`` and the
    arguments. ``is_cpu`` measures the seconds of one processor in place of the clock. Raises RuntimeError if a
    process ends before its training.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for package in (OURS, THEIRS):
        pipes[package], end = context.Pipe()
        work = (end, make, {**arguments, "package": package, "steps": steps}, is_cpu)
        processes.append(context.Process(target=_train, args=work, daemon=True))
        processes[-1].start()
        end.close()
    sides = {package: Side() for package in pipes}
    try:
        for package, pipe in pipes.items():
            _answer(pipe, package)  # the model is loaded
        for number in range(steps):
            for package in (OURS, THEIRS) if number % 2 else (THEIRS, OURS):
                pipes[package].send(None)
                sides[package].seconds.append(_answer(pipes[package], package))
        for package, pipe in pipes.items():
            pipe.send(None)
            losses, megabytes, result = _answer(pipe, package)
            sides[package] = Side(sides[package].seconds, losses, megabytes, result)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return sides


def _answer(pipe: Any, package: str) -> Any:
    try:
        answer = pipe.recv()
    except EOFError:
        raise RuntimeError(f"the training with {package} ended unexpectedly; its error is above") from None
    return answer


def _train(pipe: Any, make: Make, arguments: Mapping[str, Any], is_cpu: bool) -> None:
    """Train in turns: wait for an order before each step, and answer with its seconds."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    clock = time.process_time if is_cpu else time.perf_counter
    if is_cpu:
        torch.set_num_threads(1)
    trainer, after = make(**arguments)

    class Turns(TrainerCallback):  # type: ignore[misc]  # the library is not checked
        start = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self._wait(None)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self._wait(clock() - self.start)

        def _wait(self, answer: Any) -> None:
            pipe.send(answer)
            pipe.recv()
            self.start = clock()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Turns())
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the largest memory so far
    before = _megabytes("VmRSS:")
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    pipe.send((losses, _megabytes("VmHWM:") - before, after()))


def _megabytes(line: str) -> float:
    """Return the resident memory of this process, or the largest one so far."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition(line)[2].split()[0]) / 1024
