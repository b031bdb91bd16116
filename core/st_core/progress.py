"""Show progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Advance", "progress"]

MANY = 1000
"""The number of inputs from which on a progress bar is shown by default in an interactive terminal."""

Advance: TypeAlias = Callable[[int], None]
"""A function that advances a progress bar by a number of inputs."""


@contextmanager
def progress(total: int, show: bool | None) -> Iterator[Advance]:
    """Show a progress bar for ``total`` inputs and yield the function that advances it.

    If ``show`` is None, the bar is shown for at least ``MANY`` inputs, and only if standard error is a terminal.
    """
    if not (show or (show is None and total >= MANY and sys.stderr.isatty())):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Encoding", total=total)
        yield lambda count: bar.advance(task, count)
