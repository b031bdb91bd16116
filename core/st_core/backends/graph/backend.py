"""Run stacks as graphs on ONNX Runtime or OpenVINO, from an existing graph or from one that torch exports."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from st_core.backends import Outline, StackInfo
from st_core.backends.apart import call_apart
from st_core.backends.graph.child_process import is_installed
from st_core.backends.graph.folders import (
    FOLDER,
    SPEC,
    GraphSpec,
    cache_root,
    copy_graph,
    graph_key,
    has_weights,
    read_spec,
    read_tokenizer,
    write_graph,
)
from st_core.backends.graph.on_first_use import OnFirstUse
from st_core.backends.graph.runner import TOKEN_BUDGET, GraphRunner, feeds_of
from st_core.backends.graph.runtimes import runtime
from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.outline import read_outline
from st_core.checkpoint.held import HeldFiles
from st_core.errors import ModelBroken, missing_extra
from st_core.modules.stack import flatten, tasks_of
from st_core.modules.transformer import Transformer

if TYPE_CHECKING:
    from st_core.backends.graph.runtimes import Session
    from st_core.modules import Module

__all__ = ["GraphBackend", "can_export", "check_weights", "has_all_weights", "or_graphs", "stacks_for_graphs"]

logger = logging.getLogger(__name__)

Calibration: TypeAlias = Sequence[str] | Sequence[tuple[str, str]]


class _Held(NamedTuple):
    """A stack, and the files of the graph that runs it."""

    stack: tuple[Module, ...]
    files: HeldFiles


class GraphBackend:
    """Builds runners for graphs of one runtime and one dtype.

    The graph of a stack is looked up in the ``graphs`` folder of the model, then in the cache. If neither contains it,
    it is exported to the cache, which needs torch. Without torch or without weights, a repository graph of the
    transformer is used instead; ``file_name`` selects a repository graph in any case.
    """

    def __init__(
        self, name: str, dtype: str | None, folder: Path, file_name: str | None = None, *, model: str | None = None
    ) -> None:
        """Check the runtime; raise ImportError if it is missing, ValueError for a dtype that it has no graphs in.

        ``name`` is the name of the runtime. ``folder`` is the folder of the model, and ``model`` its name in messages,
        by default the folder.
        """
        self.name = name
        self.requested_dtype = dtype
        self.dtype = dtype or "float32"
        self.folder = folder
        self.file_name = file_name
        self.model = model or str(folder)
        self._held: dict[tuple[int, ...], _Held] = {}
        runtime(name).check(self.dtype)

    def runner(self, stack: Sequence[Module]) -> GraphRunner:
        """Build the runner of a stack; if the stack has no graph, it is exported first.

        An exported graph is opened on first use, because opening it starts threads.
        """
        file = self.repository_graph(stack)
        if file is not None:
            from st_core.backends.graph.repository import repository_runner

            return repository_runner(file, self.name, self.requested_dtype, stack)
        place = self.place(stack)
        spec = read_spec(place)
        if spec is None:
            raise ModelBroken(f"{place}: the graph is missing")
        files = HeldFiles(place, [place / name for name in (SPEC, *spec.files)])
        self._held[_key(stack)] = _Held(tuple(stack), files)
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
        session = OnFirstUse(partial(_open, files, self.name, spec.file, self.dtype, compiled))
        return GraphRunner(session, spec.inputs, spec.outputs, info, has_equal_lengths=spec.even)

    def outline(self, stack: Sequence[Module]) -> Outline | None:
        """Return the outline of a stack without opening or exporting its graph.

        None where the metadata is known only after the graph is opened or exported.
        """
        first = stack[0]
        if not isinstance(first, Transformer) or self.repository_graph(stack) is not None:
            return None
        place = self.find(stack)
        spec = None if place is None else read_spec(place)
        if place is None or spec is None:
            outline = read_outline(first, "cpu", "float32")
            return None if outline is None else replace(outline, precision=self.dtype)
        return Outline(read_tokenizer(place, spec.tokenizer), spec.max_length, spec.precision)

    def repository_graph(self, stack: Sequence[Module]) -> Path | None:
        """Return the repository graph that runs a stack's transformer, None where an exported graph runs the stack."""
        from st_core.backends.graph.repository import find_repository_graph

        if self.file_name is None:
            exports = self.dtype != "float32" or (can_export() and has_all_weights([stack]))
            if exports or self.find(stack) is not None:
                return None
        folder = stack[0].folder if isinstance(stack[0], Transformer) else self.folder
        return find_repository_graph(folder, self.name, self.file_name)

    def place(self, stack: Sequence[Module]) -> Path:
        """Return the folder of a stack's graph; a graph that exists neither in the model nor in the cache is exported.

        Raises OSError if a graph must be exported and the cache is not writable.
        """
        folder = self.find(stack)
        if folder is None:
            folder = _cache_folder(self.model) / graph_key(stack, self.name, self.dtype)
            self.make(stack, folder)
        return folder

    @contextmanager
    def at_hand(self, stack: Sequence[Module], present: Sequence[Module]) -> Iterator[Path]:
        """Yield the folder of a stack's graph, or a temporary copy if the graph of its runner was removed or replaced.

        ``present`` is the same stack in folders that exist, for a stack that has no runner yet.
        """
        held = self._held.get(_key(stack))
        if held is None:
            yield self.place(present)
            return
        with held.files.at_hand() as folder:
            yield folder

    def find(self, stack: Sequence[Module]) -> Path | None:
        """Return the folder of a stack's existing graph, None if there is none."""
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
        calibration: Calibration = (),
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Export the graph of a stack to the folder ``place``.

        For int8, ``calibration`` texts or pairs fix the ranges of activations. ``told`` is called with a description of
        each step. If a float32 graph exists already, it is converted, which takes seconds and does not need torch.
        Raises ImportError where torch is missing.
        """
        runtime(self.name).check(self.dtype, calibrated=bool(calibration))
        plain = GraphBackend(self.name, "float32", self.folder).find(stack) if self.dtype != "float32" else None
        if plain is not None:
            convert = partial(_convert, plain, self.dtype, calibration=calibration, told=told)
            call_apart(partial(write_graph, place, convert))
            return
        if not can_export():
            need = f"exporting a graph of {self.model} for backend={self.name!r} in {self.dtype}"
            raise or_graphs(missing_extra("export", need), self.folder, stack)
        check_weights(stack, self.name, self.folder)
        from st_core.backends.graph.trace import export_graph

        export = partial(export_graph, stack, self.name, self.dtype, calibration=calibration, told=told)
        call_apart(partial(write_graph, place, export))


def _key(stack: Sequence[Module]) -> tuple[int, ...]:
    return tuple(id(module) for module in stack)


def _open(files: HeldFiles, backend: str, name: str, dtype: str, compiled: Path | None) -> Session:
    """Open the session of a graph, also after its folder was removed."""
    with files.at_hand() as folder:
        return runtime(backend).open_session(folder / name, dtype, compiled)


def or_graphs(error: ImportError, folder: Path, stack: Sequence[Module]) -> ImportError:
    """Return the error for a missing package, extended by how to load existing graphs that do not need the package."""
    names = dict.fromkeys(name.rpartition("-")[0] for name in _exported(folder))
    existing = " or ".join(
        f"backend={name!r}, dtype={dtype!r}"
        for name, _, dtype in (each.partition("-") for each in names)
        if (folder / FOLDER / graph_key(stack, name, dtype)).is_dir()
    )
    if existing:
        return ImportError(f"{error}; the folder has graphs already, load it with {existing}")
    other = _of_another_state(folder)
    return ImportError(f"{error}; {other}") if other else error


def _exported(folder: Path) -> list[str]:
    """Return the names of the graphs in a model's folder, sorted."""
    return sorted(place.name for place in (folder / FOLDER).glob("*-*-*"))


def _of_another_state(folder: Path) -> str:
    """Return advice about graphs of a folder that do not match the model's files; empty without such graphs."""
    names = ", ".join(f"{FOLDER}/{name}" for name in _exported(folder))
    return names and (
        f"the folder has {names}, exported from other weights, settings or tokenizer than it contains now: restore "
        "these, or export the model again"
    )


def has_all_weights(stacks: Iterable[Sequence[Module]]) -> bool:
    """Return whether all transformers of the stacks have weights."""
    return all(has_weights(module) for stack in stacks for module in stack if isinstance(module, Transformer))


def check_weights(stack: Sequence[Module], backend: str, folder: Path) -> None:
    """Raise ModelBroken where a stack has no weights to export a graph from; the message names existing graphs."""
    from st_core.backends.graph.repository import listed

    if has_all_weights([stack]):
        return
    source = next(module.folder for module in stack if isinstance(module, Transformer))
    files, other = listed(source, backend), _of_another_state(folder)
    if files:
        other = f"load a repository graph with model_kwargs={{'file_name': {files[0]!r}}}, one of {', '.join(files)}"
    if other:
        raise ModelBroken(f"{source} contains no weights to export a graph for backend={backend!r} from; {other}")


def _convert(
    plain: Path, dtype: str, folder: Path, *, calibration: Calibration, told: Callable[[str], None]
) -> GraphSpec:
    """Convert the float32 graph in the folder ``plain`` to another dtype and write it to the empty ``folder``."""
    spec = copy_graph(plain, folder)
    told(f"converting it to {dtype}")
    feeds = feeds_of(calibration, read_tokenizer(plain, spec.tokenizer), spec.inputs, spec.max_length)
    runtime(spec.backend).reduce(folder / spec.file, dtype, feeds)
    return replace(spec, dtype=dtype, calibrated=len(calibration))


def stacks_for_graphs(modules: Sequence[Module]) -> dict[str | None, tuple[Module, ...]]:
    """Return the stacks of a model that numpy cannot run, by task; a stack of several tasks is listed once."""
    stacks: dict[tuple[int, ...], tuple[str | None, tuple[Module, ...]]] = {}
    for task in tasks_of(modules):
        stack = flatten(modules, task)
        if not numpy_backend.can_run(stack):
            stacks.setdefault(tuple(id(module) for module in stack), (task, stack))
    return dict(stacks.values())


def can_export() -> bool:
    """Return whether the packages for exporting graphs are installed."""
    return is_installed("torch", "transformers")


def _cache_folder(model: str) -> Path:
    """Create the folder for graphs in the cache and return it.

    Raises OSError where the folder is not writable, before time is spent on an export.
    """
    root = cache_root()
    where = "in the cache: the user has no home folder" if root is None else f"in {root / FOLDER}"
    reason = ""
    try:
        if root is not None:
            (root / FOLDER).mkdir(parents=True, exist_ok=True)
            if os.access(root / FOLDER, os.W_OK | os.X_OK):
                return root / FOLDER
            reason = ": it is not writable"
    except OSError as error:
        reason = f": {error.strerror or error}"
    raise OSError(
        f"the graph of {model} cannot be stored {where}{reason}; set ST_CONNECTORS_CACHE to a writable folder, "
        "or export the model to a folder once and load that folder"
    )


def _is_whole(place: Path) -> bool:
    """Return whether a graph in the cache is complete; a damaged graph is exported again."""
    try:
        return read_spec(place) is not None
    except ModelBroken as error:
        logger.warning("%s; it is exported again", error)
        return False
