"""Decide how a model is run: derive an execution plan from the arguments, the checkpoint and the installed packages.

This module does not run models. For ``backend="auto"`` there is one plan for each backend that can run the model;
:mod:`st_core.engine.fastest` then measures which plan is fastest. The graph backends are imported only for plans that
may use them, because importing them takes a noticeable part of the start-up time of a search.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from st_core.backends.dtypes import RUNTIMES, check_dtype, dtype_name
from st_core.checkpoint.find import Fetch

if TYPE_CHECKING:
    import torch

    from st_core.modules import Module

__all__ = [
    "Artifacts",
    "Device",
    "ExecutionPlan",
    "Request",
    "candidate_plans",
    "check_device",
    "fetches",
    "pass_over",
    "split_graph_options",
]

logger = logging.getLogger(__name__)

Device: TypeAlias = "str | torch.device | None"
"""A device as passed by callers; None is the default device."""


@dataclass(frozen=True, slots=True)
class Request:
    """Backend, device, dtype and the file name of a repository graph, as passed by the caller."""

    backend: str = "torch"
    device: Device = None
    dtype: object = None
    file_name: str | None = None


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The location of the graphs of a plan: a model's folder and, if one was requested, a repository graph in it."""

    folder: Path
    file_name: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """The backend, dtype, device and artifacts of a model, decided once at load.

    ``dtype`` None means the default of the backend, or the dtype of the weights in a repository graph. Stacks of static
    modules run on numpy under every plan.
    """

    backend: str
    dtype: str | None
    device: Device
    artifacts: Artifacts

    @property
    def runs_graphs(self) -> bool:
        """Whether stacks that numpy cannot run are run as graphs, not by torch."""
        return self.backend in RUNTIMES


def split_graph_options(backend: str, model_kwargs: Mapping[str, object]) -> tuple[str | None, dict[str, object]]:
    """Split ``model_kwargs`` into the file name of a repository graph and the options for transformers.

    ``export`` is optimum's option: True exports a graph from the weights, which is also the default if there are
    weights, and False runs the repository graph. Raises ValueError for an execution provider other than
    CPUExecutionProvider, for a file name with backend="auto" or ``export=True``, and for these options on torch.
    """
    options = dict(model_kwargs)
    if backend == "torch":
        graph_options = [name for name in ("export", "file_name", "provider") if name in options]
        if graph_options:
            raise ValueError(
                f"model_kwargs has {graph_options[0]!r}, which is an option of graphs; leave it out, or use "
                "backend='onnx' or backend='openvino'"
            )
        return None, options
    file_name, provider = options.pop("file_name", None), options.pop("provider", None)
    file_name = _named_by_export(backend, file_name, options.pop("export", None))
    if provider not in (None, "CPUExecutionProvider"):
        raise ValueError(f"graphs run on the processor: provider is CPUExecutionProvider, not {provider!r}")
    if file_name is not None and backend == "auto":
        raise ValueError(
            f"file_name={str(file_name)!r} names the graph of one backend; use backend='onnx' or backend='openvino'"
        )
    return None if file_name is None else str(file_name), options


def _named_by_export(backend: str, file_name: object, export: object) -> object:
    """Return the file name of a repository graph according to the option ``export``."""
    if export not in (None, True, False):
        raise ValueError(f"export in model_kwargs is True, False or None, not {export!r}")
    if export and file_name is not None:
        raise ValueError(f"export=True exports a graph, and file_name={str(file_name)!r} names one: pass one of them")
    if export is False and file_name is None and backend in RUNTIMES:
        from st_core.backends.graph.repository import DEFAULTS

        return DEFAULTS[backend]
    return file_name


def fetches(request: Request) -> tuple[Fetch, ...]:
    """Return the alternatives of files to download from the Hub, in order of preference.

    Weights are downloaded if graphs can be exported from them, and to identify the exported graphs in a repository.
    Otherwise, and from a repository without weights, a repository graph is downloaded without the weights.
    """
    backend, file_name = request.backend, request.file_name
    if backend not in RUNTIMES and backend != "auto":
        return (Fetch(),)

    from st_core.backends.graph.backend import can_export
    from st_core.backends.graph.repository import patterns_of
    from st_core.backends.graph.runtimes import runtime

    if file_name is not None:
        return (Fetch(weights=False, graphs=patterns_of(backend, file_name)),)
    names = [name for name in RUNTIMES if runtime(name).installed()] if backend == "auto" else [backend]
    dtype = dtype_name(request.dtype) or "float32"
    own = Fetch(graphs=tuple(f"graphs/{name}-{dtype}-*/*" for name in names))
    if can_export():
        instead = tuple(pattern for name in names for pattern in patterns_of(name)) if dtype == "float32" else ()
        return (replace(Fetch() if backend == "auto" else own, instead=instead),)
    repository = [Fetch(weights=False, graphs=patterns_of(name)) for name in names if dtype == "float32"]
    return (*repository, own)


def candidate_plans(request: Request, folder: Path, modules: Sequence[Module]) -> tuple[ExecutionPlan, ...]:
    """Return the plan for a model in a folder or, for backend="auto", the plans to choose the fastest from.

    Raises ValueError for a combination of backend, dtype and device that is not supported.
    """
    dtype = check_dtype(request.backend, request.dtype)
    on_torch = ExecutionPlan("torch", dtype, request.device, Artifacts(folder))
    if request.backend == "torch":
        return (on_torch,)

    from st_core.backends.graph.backend import stacks_for_graphs

    stacks = tuple(stacks_for_graphs(modules).values())
    if request.backend == "auto":
        return _automatic(replace(on_torch, dtype="float32"), stacks)
    if not stacks:
        return (replace(on_torch, dtype=None, device=None),)
    check_device(request.backend, request.device)
    return (ExecutionPlan(request.backend, dtype, "cpu", Artifacts(folder, request.file_name)),)


def _automatic(on_torch: ExecutionPlan, stacks: Sequence[Sequence[Module]]) -> tuple[ExecutionPlan, ...]:
    """Return a plan for each backend that can run all stacks in float32."""
    from st_core.backends.graph.backend import can_export, check_weights, has_all_weights
    from st_core.backends.graph.runtimes import runtime

    if not stacks or not _is_cpu(on_torch.device):  # only torch runs on other devices
        return (on_torch,)
    folder = on_torch.artifacts.folder
    installed = [name for name in RUNTIMES if runtime(name).installed()]
    has_torch = can_export() and has_all_weights(stacks)
    names = installed if has_torch else [name for name in installed if _has_graphs(name, folder, stacks)]
    if not names and can_export():
        for name, stack in product(installed, stacks):
            check_weights(stack, name, folder)
    graphs = [replace(on_torch, backend=name, device="cpu") for name in names]
    # Without torch and without graphs, the plan is still that for torch: loading it raises an error that names what is
    # missing.
    return (*graphs, *([on_torch] if has_torch or not names else []))


def _has_graphs(name: str, folder: Path, stacks: Iterable[Sequence[Module]]) -> bool:
    """Return whether a backend can run all stacks without torch; False for a runtime that cannot be imported."""
    from st_core.backends.graph.backend import GraphBackend

    try:
        graphs = GraphBackend(name, "float32", folder)
    except (ImportError, OSError) as error:
        pass_over(name, error)
        return False
    return all(graphs.find(stack) or graphs.repository_graph(stack) for stack in stacks)


def pass_over(name: str, error: Exception) -> None:
    """Log why backend="auto" does not use a backend."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    logger.warning("backend='auto' passes over %s: %s", name, reason)


def check_device(backend: str, device: object) -> None:
    """Raise ValueError for a device that a backend does not run on.

    Devices for torch are checked when the model is loaded.
    """
    if backend in RUNTIMES and not _is_cpu(device):
        raise ValueError(f"backend={backend!r} runs on the cpu, not on {device!r}; use backend='torch' for that device")


def _is_cpu(device: object) -> bool:
    return device is None or str(device).partition(":")[0] == "cpu"
