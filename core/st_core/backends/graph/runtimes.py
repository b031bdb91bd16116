"""Load a runtime by name; each runtime is a module of this package with the functions of ``Runtime``."""

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
"""The inputs of a graph by name: arrays [n, longest], and [1] for ``prompt_length``."""

RunGraph: TypeAlias = "Callable[[Feed], list[NDArray[np.float32]]]"
"""A function that runs a graph on its inputs and returns its outputs in order; safe in threads."""


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
        """Return whether the package of the runtime is installed."""
        ...

    def check(self, dtype: str, *, calibrated: bool = ...) -> None:
        """Raise ValueError for a dtype that the runtime has no graphs in, ImportError where its packages are missing.

        ``calibrated`` means that int8 ranges are to be fixed on calibration texts.
        """
        ...

    def write(self, program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> str:
        """Write a traced program to a folder and return the name of the file."""
        ...

    def reduce(self, file: Path, dtype: str, feeds: Sequence[Feed]) -> None:
        """Convert the float32 graph in a file to another dtype; for int8, ``feeds`` are inputs for calibration."""
        ...

    def weight_types(self, file: Path) -> frozenset[str]:
        """Return the dtypes of a graph's weights."""
        ...

    def open_session(self, file: Path, dtype: str, cache: Path | None) -> Session:
        """Open a graph; ``cache`` is a folder for compiled files, which shorten the next start."""
        ...


def runtime(name: str) -> Runtime:
    """Return the module of a runtime; packages are imported only when one of its functions is called."""
    return cast("Runtime", import_module(f"st_core.backends.graph.{name}.session"))
