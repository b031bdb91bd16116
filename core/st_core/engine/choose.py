"""Which backend runs a model, from the names a caller gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from st_core.backends.dtypes import FLOATS, GRAPHS, STATIC
from st_core.backends.graph.backend import (
    GraphBackend,
    can_export,
    check_weights,
    has_all_weights,
    or_graphs,
    stacks_for_graphs,
)
from st_core.backends.graph.kept import graph_key
from st_core.backends.graph.repository import patterns_of
from st_core.backends.graph.runtimes import RUNTIMES, runtime
from st_core.checkpoint.find import Fetch
from st_core.engine.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

    from st_core.checkpoint.read import Checkpoint
    from st_core.modules import Module

__all__ = ["BACKENDS", "check_device", "fetches", "make_engine", "split_graph_options", "type_again", "type_named"]

BACKENDS = ("torch", *RUNTIMES, "auto")


def split_graph_options(backend: str, model_kwargs: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The name of a graph's file, and what of ``model_kwargs`` goes to transformers; raises ValueError for what no graph can be asked for."""
    kept = dict(model_kwargs)
    if backend == "torch":
        return None, kept
    file_name, provider = kept.pop("file_name", None), kept.pop("provider", None)
    if provider not in (None, "CPUExecutionProvider"):
        raise ValueError(f"graphs run on the processor: provider is CPUExecutionProvider, not {provider!r}")
    if file_name is not None and backend == "auto":
        raise ValueError(f"file_name={str(file_name)!r} names the graph of one backend: say which, onnx or openvino")
    return None if file_name is None else str(file_name), kept


def fetches(backend: str, dtype: Any, file_name: str | None) -> tuple[Fetch, ...]:
    """What of a repository on the Hub a backend needs: weights where graphs can be made or are found by them, else a graph alone."""
    if backend not in RUNTIMES and backend != "auto":
        return (Fetch(),)
    if file_name is not None:
        return (Fetch(weights=False, graphs=patterns_of(backend, file_name)),)
    names = [name for name in RUNTIMES if runtime(name).installed()] if backend == "auto" else [backend]
    kind = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    own = Fetch(graphs=tuple(f"graphs/{name}-{kind}-*/*" for name in names))
    if can_export():
        return (Fetch() if backend == "auto" else own,)
    given = [Fetch(weights=False, graphs=patterns_of(name)) for name in names if kind == "float32"]
    return (*given, own)


def make_engine(
    checkpoint: Checkpoint,
    modules: Sequence[Module],
    *,
    backend: str,
    device: Any = None,
    dtype: Any = None,
    file_name: str | None = None,
) -> Engine:
    """The modules of a checkpoint ready to run; raises ValueError for a backend, a type or a device that does not go with the others."""
    name = type_named(backend, dtype)
    if backend == "auto":
        return _automatic(checkpoint, modules, device)
    if backend == "torch":
        return _on_torch(checkpoint, modules, device, dtype)
    if not stacks_for_graphs(modules):
        return Engine(modules)
    check_device(backend, device)
    return Engine(modules, "cpu", graphs=GraphBackend(backend, name, checkpoint.folder, file_name))


def type_named(backend: str, dtype: Any) -> str | None:
    """The name of the type that a caller gave, None for the default; raises ValueError for a backend that there is not, or a type it does not do."""
    if backend not in BACKENDS:
        raise ValueError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    if name == "":
        raise ValueError("there is no type ''; name one, or leave out dtype")
    if backend == "auto" and name not in (None, "float32"):
        raise ValueError(
            f"backend='auto' chooses among backends that give the same float32 numbers; for dtype={name!r} name the backend"
        )
    if backend == "torch" and name == "int8":
        raise ValueError("dtype='int8' needs backend='onnx' or backend='openvino'; torch computes in floats")
    known = GRAPHS if backend in RUNTIMES else (*FLOATS, "auto")
    if name is not None and name not in known:
        raise ValueError(f"backend {backend!r} has no type {name!r}; there are {', '.join(known)}")
    return name


def type_again(backend: str, precision: str) -> str | None:
    """The ``dtype`` that loads a model in the precision ``describe`` told of it; None for one that a backend has no graphs in, and on torch and auto."""
    name = precision.removesuffix(STATIC)
    return name if backend in RUNTIMES and name in GRAPHS else None


def check_device(backend: str, device: Any) -> None:
    """Raise ValueError for a device that graphs do not run on."""
    if backend in RUNTIMES and not _on_cpu(device):
        raise ValueError(f"backend={backend!r} runs on the cpu, not on {device!r}; use backend='torch' for that device")


def _on_cpu(device: Any) -> bool:
    return device is None or str(device).partition(":")[0] == "cpu"


def _on_torch(checkpoint: Checkpoint, modules: Sequence[Module], device: Any, dtype: Any) -> Engine:
    """The modules on torch; where that is not installed, the error names the graphs that the folder has."""
    try:
        return Engine(modules, device, dtype)
    except ImportError as error:
        stacks = stacks_for_graphs(modules).values()
        raise or_graphs(error, checkpoint.folder, next(iter(stacks), modules)) from error.__cause__


def _automatic(checkpoint: Checkpoint, modules: Sequence[Module], device: Any) -> Engine:
    """The modules on the backend that is fastest here in float32: another type would give other numbers on other machines."""
    if not _on_cpu(device):  # torch alone knows other devices
        return Engine(modules, device, "float32")
    from st_core.engine.fastest import fastest

    stacks = stacks_for_graphs(modules)
    if not stacks:
        return Engine(modules)
    installed = [name for name in RUNTIMES if runtime(name).installed()]
    if can_export() and has_all_weights(stacks.values()):
        names = [*installed, "torch"]
    else:
        names = [name for name in installed if _has_graphs(name, checkpoint.folder, stacks.values())]
    if not names:
        for name, stack in product(installed, stacks.values()):
            if can_export():
                check_weights(stack, name, checkpoint.folder)
        return _on_torch(checkpoint, modules, device, None)  # whose error says what is missing
    return fastest(
        " ".join(graph_key(stack, str(device), "float32") for stack in stacks.values()),
        names,
        lambda name: make_engine(checkpoint, modules, backend=name, device=device, dtype="float32"),
        next(reversed(stacks)),
    )


def _has_graphs(name: str, folder: Path, stacks: Iterable[tuple[Module, ...]]) -> bool:
    """Whether a backend can run all stacks without torch; one that cannot be imported is passed over."""
    from st_core.engine.fastest import pass_over

    try:
        graphs = GraphBackend(name, "float32", folder)
    except (ImportError, OSError) as error:
        pass_over(name, error)
        return False
    return all(graphs.find(stack) or graphs.given(stack) for stack in stacks)
