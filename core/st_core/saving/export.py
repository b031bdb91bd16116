"""Write a copy of a model with graphs, which runs without torch and still loads in sentence-transformers."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_core.backends.graph.backend import GraphBackend, stacks_for_graphs
from st_core.backends.graph.folders import FOLDER, GraphSpec, copy_graph, graph_key, write_graph
from st_core.backends.graph.runtimes import RUNTIMES, runtime
from st_core.checkpoint.find import find_checkpoint
from st_core.checkpoint.read import Checkpoint, read_checkpoint
from st_core.engine.inputs import Unset
from st_core.errors import ModelBroken, ModelUnsupported, missing_extra
from st_core.home import expand_home
from st_core.modules import LoadOptions
from st_core.modules.stack import assemble, warn_of_another

if TYPE_CHECKING:
    from st_core.engine.engine import Engine
    from st_core.modules import Module

__all__ = ["Exported", "copy_graphs", "export_model", "graph_places"]

logger = logging.getLogger(__name__)

ORGANISATIONS = {
    "CrossEncoder": "cross-encoder",
    "SentenceTransformer": "sentence-transformers",
    "SparseEncoder": "sparse-encoder",
}
OTHERS = (FOLDER, "onnx", "openvino", ".git", ".cache")
"""Folders of a checkpoint that are not copied."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    ``folder`` is the written folder, ``family`` the name of the class that loads it, ``graphs`` the graph files, and
    ``size`` their total size in bytes.
    """

    folder: Path
    family: str
    graphs: tuple[Path, ...]
    size: int


def export_model(
    name: str | PathLike[str],
    out: str | PathLike[str],
    *,
    backend: str,
    dtype: str = "float32",
    family: str | None = None,
    calibration: Sequence[Any] = (),
    told: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Copy a model to the folder ``out`` and add its graphs for a backend: "onnx", "openvino" or "auto".

    Loading that folder with the same ``backend`` and ``dtype`` needs neither torch nor transformers. "auto" adds a
    float32 graph for each installed runtime; the faster runtime is selected on the machine that loads the folder.
    ``out`` may be the model's own folder, to which only the graphs are added then. ``family`` is the class that loads
    the model, needed where its files do not name the class. ``calibration`` are a few hundred typical texts (pairs for
    a CrossEncoder) that fix the ranges of int8 activations, which is faster but less accurate than ranges computed for
    every text. ``told`` is called with a description of each step.

    Raises ValueError for an ``out`` with other content and for a dtype that the backend lacks, ModelBroken for broken
    or circular links, ModelUnsupported for modules that cannot be part of a graph, and ImportError with the install
    command.
    """
    _check(backend, dtype)
    if calibration and (dtype != "int8" or backend != "openvino"):
        raise ValueError("calibration texts need dtype='int8' and backend='openvino'")
    told("locating it")
    source, full_name, _ = find_checkpoint(
        fspath(name), organisation=ORGANISATIONS.get(family or "", "sentence-transformers")
    )
    checkpoint = read_checkpoint(source, name=full_name, revision=None)
    kind = family or _family(checkpoint)
    stacks = stacks_for_graphs(assemble(checkpoint, kind, LoadOptions()))
    if not stacks:
        raise ModelUnsupported(f"{full_name} runs on numpy and needs no graph; nothing to export")
    graphs = [GraphBackend(each, dtype, source, model=full_name) for each in _runtimes(backend)]
    add = partial(_add_graphs, stacks=tuple(stacks.values()), graphs=graphs, calibration=calibration, told=told)
    target = Path(expand_home(out))
    if target.exists() and target.resolve() == source.resolve():
        add(target)
        warn_of_another(checkpoint, kind)
        return _exported(target, kind)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is there already; name a new folder, or the model's own")
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _copy(source, copy)
        for folder in (copy, *(each for each in copy.rglob("*") if each.is_dir())):
            folder.chmod(0o755)  # the copy of a read-only folder is read-only as well
        add(copy)
        _move(copy, target)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    warn_of_another(checkpoint, kind)
    return _exported(target, kind)


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a model to an empty folder, even inside it; raise ModelBroken where a file cannot be copied."""
    for path in _links(source):
        if not path.exists():
            raise ModelBroken(f"{path}: the link points to nothing; remove it, or restore its target")
        if path.parent.resolve().is_relative_to(path.resolve()):
            raise ModelBroken(f"{path}: the link points to a folder that contains it; remove it")
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*OTHERS, target.name), dirs_exist_ok=True)
    except shutil.Error as error:
        (path, _, reason), *_ = error.args[0]
        raise ModelBroken(f"{path}: the file cannot be copied: {reason}") from error


def _links(folder: Path) -> Iterator[Path]:
    """Yield the symbolic links among the files of a folder that are copied."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in OTHERS]
        paths = (Path(place, name) for name in (*folders, *files) if name not in OTHERS)
        yield from (path for path in paths if path.is_symlink())


def _move(folder: Path, target: Path) -> None:
    """Rename a folder to ``target``, which must be free or empty; raise ValueError if it is in use by now."""
    try:
        if target.exists():
            target.rmdir()
        folder.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise ValueError(f"{target} is there already; name a new folder, or the model's own") from error


def _check(backend: str, dtype: str) -> None:
    """Raise ValueError for a backend without graphs, and for another dtype than float32 with "auto"."""
    if backend in RUNTIMES:
        return
    if backend != "auto":
        raise ValueError(
            f"no graphs for backend {backend!r}; expected one of {', '.join(RUNTIMES)}, or auto for all installed"
        )
    if dtype != "float32":
        raise ValueError(
            f"backend='auto' chooses between graphs of equal float32 numbers; name the backend for dtype={dtype!r}"
        )


def _runtimes(backend: str) -> tuple[str, ...]:
    """Return the runtimes to write graphs for; raise ImportError for "auto" where no runtime is installed."""
    if backend != "auto":
        return (backend,)
    installed = tuple(name for name in RUNTIMES if runtime(name).installed())
    if not installed:
        raise missing_extra("openvino", "writing graphs with backend='auto'")
    return installed


def _family(checkpoint: Checkpoint) -> str:
    """Return the class that loads a checkpoint; without a module list its head decides, with a warning if ambiguous."""
    if checkpoint.entries:
        return checkpoint.family
    heads = [str(each) for each in checkpoint.config.get("architectures") or []]
    if any(each.endswith("ForSequenceClassification") for each in heads):
        return "CrossEncoder"
    if any(each.endswith("ForMaskedLM") for each in heads):
        logger.warning(
            "%s does not name its class and is exported as a SentenceTransformer; for a SPLADE model pass "
            "family='SparseEncoder' (--kind sparse)",
            checkpoint.name,
        )
    return "SentenceTransformer"


def _add_graphs(
    folder: Path,
    *,
    stacks: Sequence[Sequence[Module]],
    graphs: Sequence[GraphBackend],
    calibration: Sequence[Any],
    told: Callable[[str], None],
) -> None:
    """Write the graphs of stacks into a folder; existing graphs, which may be calibrated otherwise, are replaced.

    An existing graph is replaced only when its replacement is complete.
    """
    for each, stack in product(graphs, stacks):
        _replace(
            folder / FOLDER / graph_key(stack, each.name, each.dtype),
            partial(each.make, stack, calibration=calibration, told=told),
        )


def _replace(place: Path, write: Callable[[Path], None]) -> None:
    """Replace the folder ``place`` by a folder that ``write`` fills; the old folder remains until that is done."""
    place.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=place.parent) as workspace:
        new = Path(workspace) / place.name
        write(new)
        if place.exists():
            place.rename(Path(workspace) / "old")
        new.rename(place)


@contextmanager
def graph_places(engine: Engine, modules: Sequence[Module]) -> Iterator[list[Path]]:
    """Yield the graph folders of a model, none without graphs; enter it before the files that determine them change.

    ``modules`` are those of the engine in folders that exist. Graphs of runners that were removed or replaced are
    restored in temporary folders.
    """
    graphs = engine.graphs
    with ExitStack() as opened:
        if graphs is None:
            yield []
            return
        stacks = zip(*(stacks_for_graphs(each).values() for each in (engine.modules, modules)), strict=True)
        yield [opened.enter_context(graphs.at_hand(stack, present)) for stack, present in stacks]


def copy_graphs(places: Sequence[Path], engine: Engine, folder: Path, family: str, *, trust_remote_code: bool) -> None:
    """Copy the graphs at ``places`` into ``folder``, where the model was saved, under the keys of the saved model."""
    graphs = engine.graphs
    assert graphs is not None
    saved = assemble(
        read_checkpoint(folder, name=str(folder), revision=None, trust_remote_code=trust_remote_code),
        family,
        LoadOptions(trust_remote_code=trust_remote_code),
    )
    limit = () if isinstance(engine.limit, Unset) else (engine.limit,)
    for place, written in zip(places, stacks_for_graphs(saved).values(), strict=True):
        key = graph_key(written, graphs.name, graphs.dtype)
        _replace(folder / FOLDER / key, partial(write_graph, write=partial(_copy_of, place, limit)))


def _copy_of(place: Path, limit: tuple[int | None, ...], folder: Path) -> GraphSpec:
    """Copy a graph into an empty folder; ``limit`` is empty, or contains a new maximum length."""
    spec = copy_graph(place, folder)
    return replace(spec, max_length=limit[0]) if limit else spec


def _exported(folder: Path, family: str) -> Exported:
    places = tuple(sorted(path.parent for path in (folder / FOLDER).glob("*/graph.json")))
    size = sum(file.stat().st_size for place in places for file in place.iterdir())
    return Exported(folder, family, places, size)
