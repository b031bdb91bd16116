"""Run a worker process: build the model, then compute chunks of inputs until the pipe closes."""

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
"""A message of a worker: its kind, the chunk as (call, number), and its content."""

Job = Callable[..., object]
"""A function ``job(model, inputs, *arguments)`` of a module or of a class, which pickle sends by name."""


class Recipe(Protocol):
    """Builds the model of a worker; must be picklable."""

    def build(self, device: str) -> object:
        """Build the model on a device."""
        ...

    def build_to_fork(self) -> object:
        """Build the model on the CPU with everything that its jobs may load, so that forked workers share it."""
        ...


def pin(cores: Sequence[int]) -> None:
    """Restrict this process to some cores and its libraries to as many threads; without cores, change nothing."""
    if not cores:
        return
    set_threads(len(cores))
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # a core may have become unavailable
            os.sched_setaffinity(0, cores)


def set_threads(count: int) -> None:
    """Set the number of threads that libraries use in this process."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"), str(count)))
    if "torch" in sys.modules:  # imported by the caller's main module or by the model
        sys.modules["torch"].set_num_threads(count)


def serve(pipe: Connection, recipe: Recipe, device: str, cores: tuple[int, ...]) -> None:
    """Run a spawned worker: build the model, then compute chunks."""
    pin(cores)
    live(pipe, lambda: recipe.build(device))


def live(pipe: Connection, build: Callable[[], object]) -> None:
    """Compute chunks until the pipe closes; send an error that ``build`` raises to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # an orderly exit releases semaphores of progress bars
    received: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=listen, args=(pipe, received), daemon=True).start()
    try:
        model = build()
    except Exception as error:  # noqa: BLE001 - the parent raises it
        answer(pipe, ("unready", (0, 0), portable(error)))
        return
    answer(pipe, ("ready", (0, 0), None))
    while (message := received.get()) is not None:
        chunk, job, inputs = pickle.loads(message)  # noqa: S301 - sent by the parent process
        reply: Message
        try:
            function, arguments = pickle.loads(job)  # noqa: S301 - sent by the parent process
            reply = ("done", chunk, to_cpu(function(model, inputs, *arguments)))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            reply = ("failed", chunk, portable(error))
        answer(pipe, reply)


def listen(pipe: Connection, received: SimpleQueue[bytes | None]) -> None:
    """Queue messages as they arrive, so that the parent can always send, even while this process is sending a result.

    None marks the end of the messages.
    """
    with suppress(EOFError, OSError):
        while True:
            received.put(pipe.recv_bytes())
    received.put(None)


def answer(pipe: Connection, message: Message) -> None:
    """Send a message.

    It is pickled with plain pickle, which sends tensors as bytes; torch's pickler would leave them in memory of this
    process, which may die.
    """
    with suppress(OSError):  # the parent has ended or has stopped this worker
        pipe.send_bytes(pickle.dumps(message))


def died_early(device: str, code: object) -> RuntimeError:
    """Return the error for a process that ended before it was ready."""
    return RuntimeError(
        f"a worker on {device} ended with exit code {code} before it was ready; a script that starts workers needs its "
        "calls under "
        "`if __name__ == '__main__':`, else see what it wrote to standard error"
    )


def portable(error: Exception) -> Exception:
    """Return the error if it can be pickled, else a RuntimeError with its class name and message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled in this line
    except Exception:  # noqa: BLE001 - copying an error of another library can raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def to_cpu(value: object) -> object:
    """Return results with tensors moved to the CPU, including tensors in lists and dictionaries."""
    if isinstance(value, list):
        return [to_cpu(each) for each in value]
    if isinstance(value, dict):
        return {name: to_cpu(each) for name, each in value.items()}
    return value.cpu() if hasattr(value, "cpu") else value
