"""Progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["progress"]


MANY = 1000
"""From so many inputs on, a person at a terminal sees a progress bar without asking."""


@dataclass(frozen=True, slots=True)
class _Silent:
    def __call__(self, _count: int) -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class _Bar:
    bar: Any
    task: Any = field(default=None)

    def __call__(self, count: int) -> None:
        """Move on by ``count`` inputs."""
        self.bar.advance(self.task, count)


@contextmanager
def progress(total: int, wanted: bool | None) -> Iterator[Any]:
    """A progress bar on standard error, where it is asked for, or nothing was said, somebody is watching and there is much to do."""
    if not (wanted or (wanted is None and total >= MANY and sys.stderr.isatty())):
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, bar.add_task("Encoding", total=total))
