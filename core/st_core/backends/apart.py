"""Call a function in a thread of its own, so that the thread pools that it starts end with that thread.

OpenMP, by which torch computes, keeps one pool for each thread that has computed in parallel. A process that is forked
by a thread with such a pool waits forever when it computes itself. Loading therefore computes in a thread that ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

__all__ = ["call_apart"]

Result = TypeVar("Result")


def call_apart(function: Callable[[], Result]) -> Result:
    """Return the result of a function that is called in a new thread with the context variables of this one.

    Errors are raised unchanged. An interrupt does not wait for the function.
    """
    future: Future[Result] = Future()
    thread = threading.Thread(
        target=_call, args=(copy_context().run, function, future), name="st_core-load", daemon=True
    )
    thread.start()
    try:
        return future.result()
    finally:
        if future.done():
            thread.join()


def _call(
    run: Callable[[Callable[[], Result]], Result], function: Callable[[], Result], future: Future[Result]
) -> None:
    try:
        future.set_result(run(function))
    except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
        future.set_exception(error)
