"""Which backend runs a model, from the names a caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from st_core._engine import Engine
from st_core.backends.numpy import can_run
from st_core.backends.sessions import RUNTIMES
from st_core.modules.router import Router

if TYPE_CHECKING:
    from st_core.checkpoint import Checkpoint
    from st_core.modules import Module

__all__ = ["BACKENDS", "make_engine"]

BACKENDS = ("torch", *RUNTIMES)


def make_engine(
    checkpoint: Checkpoint, modules: Sequence[Module], *, backend: str, device: Any = None, dtype: Any = None
) -> Engine:
    """The modules of a checkpoint ready to run; raises ValueError for a backend, a type or a device that does not go with the others."""
    if backend not in BACKENDS:
        raise ValueError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    if backend == "torch":
        if name == "int8":
            raise ValueError("dtype='int8' needs backend='onnx' or backend='openvino'; torch computes in floats")
        return Engine(modules, device, dtype)
    if not isinstance(modules[0], Router) and can_run(modules):
        return Engine(modules)
    from st_core.backends.graph import GraphBackend

    if device is not None and str(device).partition(":")[0] != "cpu":
        raise ValueError(f"backend={backend!r} runs on the cpu, not on {device!r}; use backend='torch' for that device")
    return Engine(modules, "cpu", graphs=GraphBackend(backend, name, checkpoint.folder))
