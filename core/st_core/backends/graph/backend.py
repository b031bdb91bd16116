"""Stacks of modules as graphs on ONNX Runtime or OpenVINO: finds a stack's graph, or makes it where torch is installed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_core.backends import Outline, StackInfo
from st_core.backends.graph.child_process import is_installed
from st_core.backends.graph.kept import (
    FOLDER,
    GraphSpec,
    cache_root,
    copy_graph,
    graph_key,
    has_weights,
    keep,
    read_spec,
    read_tokenizer,
)
from st_core.backends.graph.runner import TOKEN_BUDGET, GraphRunner, feeds_of
from st_core.backends.graph.runtimes import runtime
from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.outline import read_outline
from st_core.errors import ModelBroken, missing_extra
from st_core.modules.stack import flatten, tasks_of
from st_core.modules.transformer import Transformer

if TYPE_CHECKING:
    from st_core.modules import Module

__all__ = ["GraphBackend", "can_export", "check_weights", "has_all_weights", "or_graphs", "stacks_for_graphs"]

logger = logging.getLogger(__name__)


class GraphBackend:
    """Makes stacks ready as graphs of one runtime and one type.

    A stack's graph is looked for in the ``graphs`` folder of the model's own folder, then in the cache; where neither has it, it is made and kept in
    the cache, which needs torch. Without torch, or without weights, a graph of the transformer that came with the model does. With ``file_name`` it
    is that one.
    """

    def __init__(
        self, name: str, dtype: str | None, folder: Path, file_name: str | None = None, *, model: str | None = None
    ) -> None:
        """``model`` is what messages call it, the folder where nothing is said.

        Raises ImportError where the runtime is missing, ValueError for a type that it does not do.
        """
        self.name = name
        self.asked = dtype
        self.dtype = dtype or "float32"
        self.folder = folder
        self.file_name = file_name
        self.model = model or str(folder)
        runtime(name).check(self.dtype)

    def runner(self, stack: Sequence[Module]) -> GraphRunner:
        """A stack ready to run."""
        given = self.repository_graph(stack)
        if given is not None:
            from st_core.backends.graph.repository import given_runner

            return given_runner(given, self.name, self.asked, stack)
        place = self.place(stack)
        spec = read_spec(place)
        if spec is None:
            raise ModelBroken(f"{place}: the graph is gone")
        root = cache_root()
        compiled = None if root is None else root / "compiled" / place.name
        info = StackInfo(
            read_tokenizer(place, spec.tokenizer),
            spec.max_length,
            spec.precision,
            token_budget=TOKEN_BUDGET,
            positions=spec.positions,
            vocabulary=spec.words,
            labels=spec.labels,
            outputs=spec.outputs,
        )
        session = runtime(self.name).open_session(place / spec.file, self.dtype, compiled)
        return GraphRunner(session, spec.inputs, spec.outputs, info, has_equal_lengths=spec.even)

    def outline(self, stack: Sequence[Module]) -> Outline | None:
        """What is told of a stack without loading or making its graph; None where only that tells it."""
        first = stack[0]
        if not isinstance(first, Transformer) or self.repository_graph(stack) is not None:
            return None
        place = self.find(stack)
        spec = None if place is None else read_spec(place)
        if place is None or spec is None:
            found = read_outline(first, "cpu", "float32")
            return None if found is None else replace(found, precision=self.dtype)
        return Outline(read_tokenizer(place, spec.tokenizer), spec.max_length, spec.precision)

    def repository_graph(self, stack: Sequence[Module]) -> Path | None:
        """The graph of the transformer alone that this stack is run with, None where it is one of our own; raises ModelNotFound for a wrong name."""
        from st_core.backends.graph.repository import find_given

        if self.file_name is None:
            made = self.dtype != "float32" or (can_export() and has_all_weights([stack]))
            if made or self.find(stack) is not None:
                return None
        return find_given(getattr(stack[0], "folder", self.folder), self.name, self.file_name)

    def place(self, stack: Sequence[Module]) -> Path:
        """The folder of a stack's graph, made where there is none yet; raises OSError where there is no place for it."""
        found = self.find(stack)
        if found is None:
            found = _room(self.model) / graph_key(stack, self.name, self.dtype)
            self.make(stack, found)
        return found

    def find(self, stack: Sequence[Module]) -> Path | None:
        """The folder of a stack's graph, None where there is none yet."""
        key = graph_key(stack, self.name, self.dtype)
        own, root = self.folder / FOLDER / key, cache_root()
        if own.is_dir():
            return own
        cached = None if root is None else root / FOLDER / key
        return cached if cached is not None and _is_whole(cached) else None

    def make(
        self,
        stack: Sequence[Module],
        place: Path,
        calibration: Sequence[str] = (),
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Export a stack's graph into a folder, for int8 with ranges fixed on ``calibration``; ``told`` hears what is being done.

        Where the float32 graph is there, the others are made of it, which takes seconds and no torch. Raises ImportError where torch is missing.
        """
        runtime(self.name).check(self.dtype, calibrated=bool(calibration))
        plain = GraphBackend(self.name, "float32", self.folder).find(stack) if self.dtype != "float32" else None
        if plain is not None:
            keep(place, partial(_reduced, plain, self.dtype, calibration=calibration, told=told))
            return
        if not can_export():
            need = f"making a graph of {self.model} for backend={self.name!r} in {self.dtype}"
            raise or_graphs(missing_extra("export", need), self.folder, stack)
        check_weights(stack, self.name, self.folder)
        from st_core.backends.graph.trace import export_graph

        keep(place, partial(export_graph, stack, self.name, self.dtype, calibration=calibration, told=told))


def or_graphs(error: ImportError, folder: Path, stack: Sequence[Module]) -> ImportError:
    """The error for a package that is missing, with how to load each graph of a stack that lies in the model's folder and does without it."""
    named = dict.fromkeys(name.rpartition("-")[0] for name in _exported(folder))
    there = " or ".join(
        f"backend={name!r}, dtype={dtype!r}"
        for name, _, dtype in (each.partition("-") for each in named)
        if (folder / FOLDER / graph_key(stack, name, dtype)).is_dir()
    )
    if there:
        return ImportError(f"{error}; the folder has graphs already, load it with {there}")
    other = _of_another_state(folder)
    return ImportError(f"{error}; {other}") if other else error


def _exported(folder: Path) -> list[str]:
    """The names of the graphs in a model's folder."""
    return sorted(place.name for place in (folder / FOLDER).glob("*-*-*"))


def _of_another_state(folder: Path) -> str:
    """What to do about graphs in a folder that fit no files there; empty where there are none."""
    names = ", ".join(f"{FOLDER}/{name}" for name in _exported(folder))
    return names and (
        f"the folder has {names}, made of other weights, settings or tokenizer than it holds now: put these back, or export the model again"
    )


def has_all_weights(stacks: Iterable[Sequence[Module]]) -> bool:
    """Whether all the transformers of stacks have weights."""
    return all(has_weights(module) for stack in stacks for module in stack if isinstance(module, Transformer))


def check_weights(stack: Sequence[Module], backend: str, folder: Path) -> None:
    """Raise ModelBroken, with what graphs there are, where a stack without weights is to be made a graph."""
    from st_core.backends.graph.repository import listed

    if has_all_weights([stack]):
        return
    source = next(module.folder for module in stack if isinstance(module, Transformer))
    given, other = listed(source, backend), _of_another_state(folder)
    if given:
        other = f"load the graph that is there with model_kwargs={{'file_name': {given[0]!r}}}, of {', '.join(given)}"
    if other:
        raise ModelBroken(f"{source} holds no weights that a graph for backend={backend!r} could be made of; {other}")


def _reduced(
    plain: Path, dtype: str, folder: Path, *, calibration: Sequence[Any], told: Callable[[str], None]
) -> GraphSpec:
    """Write the graph in ``plain``, which is float32, in another type into an empty folder."""
    spec = copy_graph(plain, folder)
    told(f"turning it into {dtype}")
    feeds = feeds_of(calibration, read_tokenizer(plain, spec.tokenizer), spec.inputs, spec.max_length)
    runtime(spec.backend).reduce(folder / spec.file, dtype, feeds)
    return replace(spec, dtype=dtype, calibrated=len(calibration))


def stacks_for_graphs(modules: Sequence[Module]) -> dict[str | None, tuple[Module, ...]]:
    """The stacks of a model that numpy cannot run, each once, by a task that goes through it."""
    found: dict[tuple[int, ...], tuple[str | None, tuple[Module, ...]]] = {}
    for task in tasks_of(modules):
        stack = flatten(modules, task)
        if not numpy_backend.can_run(stack):
            found.setdefault(tuple(id(module) for module in stack), (task, stack))
    return dict(found.values())


def can_export() -> bool:
    """Whether what makes graphs is installed."""
    return is_installed("torch", "transformers")


def _room(model: str) -> Path:
    """The folder of graphs in the cache, made where there is none; raises OSError, before a graph is made for nothing, where none can be kept."""
    root = cache_root()
    where = "in the cache, because the user has no home folder" if root is None else f"in {root / FOLDER}"
    reason = ""
    try:
        if root is not None:
            (root / FOLDER).mkdir(parents=True, exist_ok=True)
            if os.access(root / FOLDER, os.W_OK | os.X_OK):
                return root / FOLDER
            reason = ": it cannot be written to"
    except OSError as error:
        reason = f": {error.strerror or error}"
    raise OSError(
        f"the graph of {model} cannot be kept {where}{reason}; set ST_CONNECTORS_CACHE to a folder that can be written to, "
        "or export the model into a folder once and load that one"
    )


def _is_whole(place: Path) -> bool:
    """Whether a graph in the cache can be used; what is damaged is made again."""
    try:
        return read_spec(place) is not None
    except ModelBroken as error:
        logger.warning("%s; it is made again", error)
        return False
