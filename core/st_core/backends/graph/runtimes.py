"""The two runtimes of graphs, by name; each is a module of this package with the functions of ``Runtime``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from st_core.backends.dtypes import RUNTIMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

__all__ = ["RUNTIMES", "Feed", "RunGraph", "Runtime", "Session", "runtime"]

Feed: TypeAlias = "dict[str, NDArray[np.int64]]"
"""The inputs of a graph by name: [n, longest], and [1] for ``prompt_length``."""

RunGraph: TypeAlias = "Callable[[Feed], list[NDArray[np.float32]]]"
"""Runs a graph on its inputs and returns its outputs in order; safe in threads."""


class Session(Protocol):
    """A graph ready to run, with the names of its inputs and outputs; safe in threads."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        ...

    def __call__(self, feed: Feed, /) -> list[NDArray[np.float32]]:
        """Return the outputs in the graph's order."""
        ...


class Runtime(Protocol):
    """The functions of a runtime's module."""

    def installed(self) -> bool:
        """Return whether its package is installed."""
        ...

    def check(self, dtype: str, *, calibrated: bool = ...) -> None:
        """Raise ValueError for a dtype that it has no graphs in, ImportError where it is not installed."""
        ...

    def write(self, program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> str:
        """Write a traced program and return the name of the file."""
        ...

    def reduce(self, file: Path, dtype: str, feeds: Sequence[Feed]) -> None:
        """Convert a written float32 graph to another dtype; ``feeds`` are inputs that int8 is calibrated on."""
        ...

    def weight_types(self, file: Path) -> frozenset[str]:
        """Return the dtypes of a graph's weights."""
        ...

    def open_session(self, file: Path, dtype: str, cache: Path | None) -> Session:
        """Open a graph; ``cache`` is a folder for files that make the next start quicker."""
        ...


def runtime(name: str) -> Runtime:
    """Return the module of a runtime; its packages are imported when one of its functions is called."""
    return cast("Runtime", import_module(f"st_core.backends.graph.{name}.session"))
