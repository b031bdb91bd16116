"""The code of a worker process: build the model, then answer chunks of inputs until the pipe closes."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Protocol

__all__ = ["Job", "Message", "Recipe", "died_early", "live", "pin", "portable", "serve", "set_threads"]

Message = tuple[str, tuple[int, int], object]
"""A worker's message: its kind, the chunk as (call, number), and its content."""

Job = Callable[..., object]
"""``job(model, inputs, *arguments)``: a function of a module or of a class, which pickle sends by name."""


class Recipe(Protocol):
    """How a worker builds its model; must survive pickling."""

    def build(self, device: str) -> object:
        """Build the model on a device."""
        ...

    def build_to_fork(self) -> object:
        """Build the model on the CPU with all that its jobs may load, so that forked workers share it."""
        ...


def pin(cores: Sequence[int]) -> None:
    """Keep this process on some cores and give its libraries as many threads; no cores leave everything as it is."""
    if not cores:
        return
    set_threads(len(cores))
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # a core may have been taken away meanwhile
            os.sched_setaffinity(0, cores)


def set_threads(count: int) -> None:
    """Set the number of threads of this process's libraries."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"), str(count)))
    if "torch" in sys.modules:  # loaded by the caller's main module, which is imported here too, or by the model
        sys.modules["torch"].set_num_threads(count)


def serve(pipe: Connection, recipe: Recipe, device: str, cores: tuple[int, ...]) -> None:
    """Run a spawned worker: build the model, then answer."""
    pin(cores)
    live(pipe, lambda: recipe.build(device))


def live(pipe: Connection, build: Callable[[], object]) -> None:
    """Answer chunks until the pipe closes; an error that ``build`` raises is sent to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # an orderly end: progress bars of libraries hold semaphores
    received: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=listen, args=(pipe, received), daemon=True).start()
    try:
        model = build()
    except Exception as error:  # noqa: BLE001 - the parent raises it
        answer(pipe, ("unready", (0, 0), portable(error)))
        return
    answer(pipe, ("ready", (0, 0), None))
    while (message := received.get()) is not None:
        chunk, job, inputs = pickle.loads(message)  # noqa: S301 - from our own parent
        reply: Message
        try:
            function, arguments = pickle.loads(job)  # noqa: S301 - from our own parent
            reply = ("done", chunk, to_cpu(function(model, inputs, *arguments)))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            reply = ("failed", chunk, portable(error))
        answer(pipe, reply)


def listen(pipe: Connection, received: SimpleQueue[bytes | None]) -> None:
    """Queue messages as they arrive, so that the parent never waits to send while this process waits to answer.

    None marks the end.
    """
    with suppress(EOFError, OSError):
        while True:
            received.put(pipe.recv_bytes())
    received.put(None)


def answer(pipe: Connection, message: Message) -> None:
    """Send a message.

    Plain pickle carries tensors as bytes, where torch's own leaves them in memory of a process that may die.
    """
    with suppress(OSError):  # the parent is gone, or has stopped us
        pipe.send_bytes(pickle.dumps(message))


def died_early(device: str, code: object) -> RuntimeError:
    """Return the error for a process that ended before it was ready."""
    return RuntimeError(
        f"a worker on {device} ended with exit code {code} before it was ready; a script that starts workers needs its "
        "calls under "
        "`if __name__ == '__main__':`, else see what it wrote to standard error"
    )


def portable(error: Exception) -> Exception:
    """Return the error where it survives pickling, else a RuntimeError with its class name and message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - a foreign error may raise any error when it is copied
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def to_cpu(value: object) -> object:
    """Return results with their tensors moved to the CPU, inside lists and dictionaries too."""
    if isinstance(value, list):
        return [to_cpu(each) for each in value]
    if isinstance(value, dict):
        return {name: to_cpu(each) for name, each in value.items()}
    return value.cpu() if hasattr(value, "cpu") else value
