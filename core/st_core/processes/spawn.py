"""Spawn processes connected by a pipe, and end them."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Protocol

__all__ = ["PATIENCE", "Process", "end", "spawn"]

PATIENCE = 5.0
"""Seconds that a process has to end before it is killed."""


class Process(Protocol):
    """The interface of ``multiprocessing.Process`` that spawned and forked workers share."""

    @property
    def pid(self) -> int | None:
        """The process id."""
        ...

    @property
    def sentinel(self) -> int:
        """A handle that becomes readable when the process ends."""
        ...

    @property
    def exitcode(self) -> int | None:
        """The exit code, negative for a signal; None while the process is running."""
        ...

    def is_alive(self) -> bool:
        """Return whether the process is running."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process ends, at most ``timeout`` seconds."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...

    def close(self) -> None:
        """Release the handle of a process that has ended."""
        ...


def spawn(serve: Callable[..., None], *arguments: object, name: str) -> tuple[Process, Connection]:
    """Start a process that runs ``serve(pipe, *arguments)``; return it and the parent's end of the pipe."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, *arguments), name=name, daemon=True)
    try:
        process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def end(process: Process) -> None:
    """Wait for a process that is ending, kill it after ``PATIENCE`` seconds, and release its handle."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
