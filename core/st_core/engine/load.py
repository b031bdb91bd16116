"""Load the modules of a checkpoint on the requested backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from st_core.backends.apart import call_apart
from st_core.engine.engine import Engine
from st_core.engine.options import CallOptions
from st_core.engine.plan import ExecutionPlan, Request, candidate_plans
from st_core.engine.runners import RunnerFactory

if TYPE_CHECKING:
    from pathlib import Path

    from st_core.backends import Features
    from st_core.modules import Module

__all__ = ["load_engine"]


def load_engine(folder: Path, modules: Sequence[Module], request: Request) -> Engine:
    """Return the engine for a model in a folder; backend="auto" selects the backend that is fastest on this machine.

    Raises ValueError for a combination of backend, dtype and device that is not supported.
    """
    plans = candidate_plans(request, folder, modules)
    if len(plans) == 1:
        return _build(modules, plans[0])

    from st_core.backends.graph.backend import stacks_for_graphs
    from st_core.backends.graph.folders import graph_key
    from st_core.engine.fastest import fastest

    stacks = stacks_for_graphs(modules)
    key = " ".join(graph_key(stack, str(request.device), "float32") for stack in stacks.values())
    seconds = partial(_seconds, next(reversed(stacks)))
    builders = {plan.backend: partial(_build_and_try, modules, plan, seconds) for plan in plans}
    engine: Engine = call_apart(partial(fastest, key, builders, seconds))
    return engine


def _build_and_try(
    modules: Sequence[Module], plan: ExecutionPlan, seconds: Callable[[Engine, Sequence[str]], float]
) -> Engine:
    """Load the stacks and compute a word, because a graph is opened on first use; raise the error of either."""
    engine = _build(modules, plan)
    if plan.runs_graphs:
        seconds(engine, ["word"])
    return engine


def _build(modules: Sequence[Module], plan: ExecutionPlan) -> Engine:
    """Load the stacks.

    If torch is needed but not installed, the ImportError lists the graphs in the folder that run without torch.
    """
    try:
        return Engine(modules, RunnerFactory(plan))
    except ImportError as error:
        if plan.runs_graphs:
            raise

        from st_core.backends.graph.backend import or_graphs, stacks_for_graphs

        stacks = stacks_for_graphs(modules).values()
        raise or_graphs(error, plan.artifacts.folder, next(iter(stacks), modules)) from error.__cause__


def _seconds(task: str | None, engine: Engine, texts: Sequence[str]) -> float:
    """Return the time in seconds that an engine takes to compute texts."""
    began = perf_counter()
    for _, features in engine.run(texts, CallOptions(task=task, progress=False)):
        _wait(features)
    return perf_counter() - began


def _wait(features: Features) -> None:
    """Wait until a result is computed, because calls to a GPU return before the computation is complete."""
    for name in ("scores", "sentence_embedding"):
        if hasattr(features.get(name), "cpu"):
            features[name].cpu()
