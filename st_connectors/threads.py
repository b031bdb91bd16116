"""Run blocking calls of async callers in worker threads; a cancelled await leaves no write unfinished behind."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["finish", "threaded"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def threaded(
    method: Callable[Concatenate[S, P], R], *, is_write: bool = False
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Return an asynchronous version of a method, which runs the method in a worker thread.

    If a call is cancelled, the await of a write ends when the write has ended; that of a read ends at once, and the
    thread finishes the read by itself.
    """

    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio  # async callers have it loaded; for others it would double the import time

        call = asyncio.to_thread(method, self, *args, **kwargs)
        return await (finish(call) if is_write else call)

    run.__doc__ = f"``{method.__name__}`` for async callers, in a worker thread."
    if is_write:
        run.__doc__ += " If cancelled, it ends when the write has ended."
    return run


async def finish(call: Coroutine[Any, Any, R], on_cancel: Callable[[], object] = lambda: None) -> R:
    """Await a call in a worker thread to its end, even if this await is cancelled.

    On cancellation, ``on_cancel`` is called, and CancelledError is raised when the call has ended; an error of the call
    is then dropped.
    """
    import asyncio

    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        on_cancel()
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # read, or asyncio logs that it was not
        raise
