"""Which backend runs a model, from the names a caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from st_core._engine import Engine
from st_core.backends.numpy import can_run
from st_core.backends.sessions import RUNTIMES, runtime
from st_core.modules.router import Router

if TYPE_CHECKING:
    from st_core.checkpoint import Checkpoint
    from st_core.modules import Module

__all__ = ["BACKENDS", "make_engine"]

BACKENDS = ("torch", *RUNTIMES, "auto")


def make_engine(
    checkpoint: Checkpoint, modules: Sequence[Module], *, backend: str, device: Any = None, dtype: Any = None
) -> Engine:
    """The modules of a checkpoint ready to run; raises ValueError for a backend, a type or a device that does not go with the others."""
    if backend not in BACKENDS:
        raise ValueError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    if backend == "auto":
        return _automatic(checkpoint, modules, device, name)
    if backend == "torch":
        if name == "int8":
            raise ValueError("dtype='int8' needs backend='onnx' or backend='openvino'; torch computes in floats")
        return Engine(modules, device, dtype)
    if not isinstance(modules[0], Router) and can_run(modules):
        return Engine(modules)
    from st_core.backends.graph import GraphBackend

    if not _on_cpu(device):
        raise ValueError(f"backend={backend!r} runs on the cpu, not on {device!r}; use backend='torch' for that device")
    return Engine(modules, "cpu", graphs=GraphBackend(backend, name, checkpoint.folder))


def _on_cpu(device: Any) -> bool:
    return device is None or str(device).partition(":")[0] == "cpu"


def _automatic(checkpoint: Checkpoint, modules: Sequence[Module], device: Any, dtype: str | None) -> Engine:
    """The modules on the backend that is fastest here in float32: another type would give other numbers on other machines."""
    if dtype not in (None, "float32"):
        raise ValueError(
            f"backend='auto' chooses among backends that give the same float32 numbers; for dtype={dtype!r} name the backend"
        )
    if not _on_cpu(device):  # torch alone knows other devices
        return Engine(modules, device, "float32")
    from st_core.backends.fastest import fastest
    from st_core.backends.graph import GraphBackend, can_export, stacks_for_graphs
    from st_core.backends.graphs import graph_key

    stacks = stacks_for_graphs(modules)
    if not stacks:
        return Engine(modules)
    names = [name for name in RUNTIMES if runtime(name).installed()]
    if can_export():
        names.append("torch")
    else:
        graphs = {name: GraphBackend(name, "float32", checkpoint.folder) for name in names}
        names = [name for name in names if all(graphs[name].find(stack) for stack in stacks.values())]
    if not names:
        return Engine(modules)  # whose error says what is missing
    return fastest(
        " ".join(graph_key(stack, str(device), "float32") for stack in stacks.values()),
        names,
        lambda name: make_engine(checkpoint, modules, backend=name, device=device, dtype="float32"),
        next(reversed(stacks)),
    )
