"""Processes of this package's own: spawned with a pipe to them, and ended."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

__all__ = ["PATIENCE", "end", "spawn"]

PATIENCE = 5.0
"""Seconds a process has to end by itself before it is killed."""


def spawn(serve: Callable[..., None], *arguments: Any, name: str) -> tuple[Any, Any]:
    """A process that runs ``serve`` with its end of a pipe and the arguments, and our end; raises what starting it raises."""
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


def end(process: Any) -> None:
    """Wait for the end of a process that was asked to, kill it where it does not end, and give it back."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
