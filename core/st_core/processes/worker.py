"""What runs in the process of a worker: the model made again, and chunks of inputs answered until the pipe closes."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from st_core.modules.pooling import Pooling

if TYPE_CHECKING:
    from st_core.model import Model

__all__ = ["Message", "Recipe", "died_early", "live", "pin", "portable", "serve", "set_threads"]

Message = tuple[str, tuple[int, int], Any]
"""What a worker says: what it is about, the chunk by call and number, and what goes with it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a worker makes the model again: its class, its folder, the arguments it was loaded with, and what was set since then.

    ``limit`` holds the maximum length where one was set; ``include_prompt`` is what each pooling module says, None for other modules.
    """

    kind: type[Model]
    folder: str
    loading: Mapping[str, Any]
    limit: tuple[int | None, ...]
    include_prompt: tuple[bool | None, ...]

    @classmethod
    def of(cls, model: Model) -> Recipe:
        """How to make a model again as it is now."""
        engine = model._engine  # noqa: SLF001
        return cls(
            type(model),
            str(model.checkpoint.folder),
            model._loading,  # noqa: SLF001
            (engine.limit,) if engine.has_limit else (),
            tuple(module.include_prompt if isinstance(module, Pooling) else None for module in engine.modules),
        )

    def make(self, device: str) -> Model:
        """The model on a device; raises what loading raises."""
        kind: Any = self.kind  # each family adds arguments of its own to those that all have
        model: Model = kind(self.folder, device=device, **self.loading)
        modules = [
            module if own is None or own == module.include_prompt else replace(module, include_prompt=own)
            for module, own in zip(model._engine.modules, self.include_prompt, strict=True)  # noqa: SLF001
        ]
        if any(new is not old for new, old in zip(modules, model._engine.modules, strict=True)):  # noqa: SLF001
            model._engine = model._engine.with_modules(modules)  # noqa: SLF001
        for limit in self.limit:
            model._engine.limit = limit  # noqa: SLF001
        return model


def pin(cores: Sequence[int]) -> None:
    """Keep this process on some cores, and let its libraries have as many threads."""
    if not cores:
        return
    set_threads(len(cores))
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # a core may have been taken away meanwhile
            os.sched_setaffinity(0, cores)


def set_threads(count: int) -> None:
    """Let this process's libraries have so many threads."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"), str(count)))
    if "torch" in sys.modules:  # loaded by the caller's main module, which is imported here too, or by the model
        sys.modules["torch"].set_num_threads(count)


def serve(pipe: Any, recipe: Recipe, device: str, cores: tuple[int, ...]) -> None:
    """What a worker that was spawned does: make the model, then answer."""
    pin(cores)
    live(pipe, lambda: recipe.make(device))


def live(pipe: Any, model_of: Callable[[], Model]) -> None:
    """Answer chunks until the pipe closes; what ``model_of`` raises is told the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # an orderly end: progress bars of libraries hold semaphores
    waiting: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=listen, args=(pipe, waiting), daemon=True).start()
    try:
        model = model_of()
    except Exception as error:  # noqa: BLE001 - the parent raises it
        answer(pipe, ("unready", (0, 0), portable(error)))
        return
    answer(pipe, ("ready", (0, 0), None))
    while (message := waiting.get()) is not None:
        number, job, inputs = pickle.loads(message)  # noqa: S301 - from our own parent
        try:
            method, arguments = pickle.loads(job)  # noqa: S301 - from our own parent
            found = ("done", number, moved(getattr(model, method)(inputs, *arguments)))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            found = ("failed", number, portable(error))
        answer(pipe, found)


def listen(pipe: Any, waiting: SimpleQueue[bytes | None]) -> None:
    """Take what comes at once, so that the parent never waits to send while this process waits to answer; None is the end."""
    with suppress(EOFError, OSError):
        while True:
            waiting.put(pipe.recv_bytes())
    waiting.put(None)


def answer(pipe: Any, message: Message) -> None:
    """Send a message; plain pickle carries tensors as bytes, where torch's own way leaves them in memory of a process that may die."""
    with suppress(OSError):  # the parent is gone, or has stopped us
        pipe.send_bytes(pickle.dumps(message))


def died_early(device: str, code: object) -> RuntimeError:
    """The error for a process that ended before it could work."""
    return RuntimeError(
        f"a worker on {device} ended with exit code {code} before it was ready; a script that starts workers needs its calls under "
        "`if __name__ == '__main__':`, else see what it wrote to standard error"
    )


def portable(error: Exception) -> Exception:
    """The error, where it survives the way to the parent, else a RuntimeError with its name and message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever a foreign error does when it is copied
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def moved(value: Any) -> Any:
    """Results with their tensors on the CPU."""
    if isinstance(value, list):
        return [moved(each) for each in value]
    if isinstance(value, dict):
        return {name: moved(each) for name, each in value.items()}
    return value.cpu() if hasattr(value, "cpu") else value
