"""The two runtimes of graphs, by name; each is a file of this package with the same six functions.

``installed()``                      whether its package is there
``check(dtype, calibrated)``         raises for a type it does not do, and ImportError where it is not installed
``write(program, folder, outputs)``  writes a traced program, gives the name of the file
``reduce(file, dtype, feeds)``       changes a written float32 graph to another type; ``feeds`` are inputs that int8 is calibrated on
``weight_types(file)``               the types that the weights of a graph are kept in
``open_session(file, dtype, kept)``  the graph ready to run: a function from arrays by name to a list of arrays, safe in threads, with the
                                     names of both as ``inputs`` and ``outputs``. ``kept`` is a folder for what makes the next start quicker, or None
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["RUNTIMES", "runtime"]

RUNTIMES = ("onnx", "openvino")


def runtime(name: str) -> Any:
    """The module of a runtime; its packages are imported when a function of it is called."""
    return import_module(f"st_core.backends.graph.{name}.session")
