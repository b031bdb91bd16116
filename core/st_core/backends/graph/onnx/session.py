"""Use ONNX Runtime: write a traced program, convert weights to fewer bits, open sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from st_core.backends.dtypes import GRAPHS
from st_core.backends.graph import sixteen_bits
from st_core.backends.graph.child_process import is_installed, run_module
from st_core.backends.graph.onnx.dtypes import weight_types
from st_core.backends.graph.onnx.sixteen import LARGE, store_in_sixteen_bits
from st_core.errors import ModelBroken, missing_extra

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from torch.export import ExportedProgram

    from st_core.backends.graph.runtimes import Feed

__all__ = ["check", "installed", "open_session", "reduce", "weight_types", "write"]

FILE = "model.onnx"
OPSET = 18
"""The newest ONNX operator set that torch.onnx writes without a conversion."""


def _package() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnx", "backend='onnx'") from error
    package: ModuleType = onnxruntime
    return package


def installed() -> bool:
    """Return whether the package is installed."""
    return is_installed("onnxruntime")


def check(dtype: str, *, calibrated: bool = False) -> None:
    """Raise ValueError for a dtype without graphs, ImportError where the package is missing.

    ``calibrated`` int8 is a ValueError too, because ONNX Runtime has no graphs with fixed ranges.
    """
    _package()
    if dtype not in GRAPHS:
        raise ValueError(f"unknown dtype {dtype!r} for backend 'onnx'; expected one of {', '.join(GRAPHS)}")
    if calibrated:
        raise ValueError(
            "backend 'onnx' has no int8 with fixed ranges; calibrate with backend='openvino', or pass no texts"
        )


def write(program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> str:
    """Write a traced program as ``model.onnx``, with weights of more than 2 GB in a separate file."""
    import torch

    try:
        import onnxscript  # noqa: F401 - the error of torch does not name the extra of this package
    except ImportError as error:
        raise missing_extra("export", "writing an ONNX graph") from error
    large = sum(each.numel() * each.element_size() for each in program.state_dict.values()) > LARGE
    torch.onnx.export(
        program,
        (),
        folder / FILE,
        dynamo=True,
        opset_version=OPSET,
        output_names=list(outputs),
        external_data=large,
        verbose=False,
    )
    return FILE


def reduce(file: Path, dtype: str, feeds: Sequence[Feed]) -> None:  # noqa: ARG001 - the common signature
    """Convert the matrices of a graph to eight or sixteen bits."""
    if dtype in sixteen_bits.TYPES:
        store_in_sixteen_bits(file, dtype)
        return
    run_module(
        "st_core.backends.graph.onnx.int8",
        str(file),
        needs=("onnx", "onnx_ir"),  # onnxruntime 1.32 imports both to quantize, but does not require them
    )


class Session:
    """A graph in ONNX Runtime; safe in threads, because the ``run`` method of a session is."""

    def __init__(self, session: InferenceSession) -> None:
        """Wrap a session of ONNX Runtime."""
        self._session = session
        self.outputs = tuple(each.name for each in session.get_outputs())
        self.inputs = tuple(each.name for each in session.get_inputs())

    def __call__(self, feed: Feed) -> list[NDArray[np.float32]]:
        """Return the outputs in the graph's order."""
        arrays: list[NDArray[np.float32]] = self._session.run(None, feed)
        return arrays


def open_session(file: Path, dtype: str, cache: Path | None) -> Session:  # noqa: ARG001 - the common signature
    """Open a graph on this processor; raise ModelBroken for a file that ONNX Runtime cannot use."""
    ort = _package()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return Session(ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # the errors of ONNX Runtime have no common class
        raise ModelBroken(f"{file}: ONNX Runtime cannot use it: {str(error).strip().splitlines()[0]}") from error
