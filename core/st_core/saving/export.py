"""Writes a model's folder with graphs in it, which runs without torch and loads in sentence-transformers as before."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
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
    """The folder that was written, the class that loads it, its graphs, and their size in bytes."""

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
    """Copy a model to the folder ``out`` and put its graphs for a backend, "onnx", "openvino" or "auto", beside its files.

    Loading that folder with the same ``backend`` and ``dtype`` needs neither torch nor transformers. "auto" puts there a float32 graph for each
    runtime that is installed, and which is faster is found where the folder is loaded, not where it was made. ``out`` may be the model's own folder,
    which then only gains the graphs. ``family`` is the class it is for, where its files leave that open. ``calibration`` are some hundred
    typical texts (pairs for a CrossEncoder), on which int8 fixes the ranges of activations: faster, and less exact than finding them anew for
    every text, as is done without. ``told`` is called with a few words on each step as it begins.

    Raises ValueError for an ``out`` that holds something else and for a type the backend does not do; ModelBroken for links that lead nowhere or
    round in a circle; ModelUnsupported for modules that cannot
    be part of a graph; ImportError, with what to install, where a package is missing.
    """
    _check(backend, dtype)
    if calibration and (dtype != "int8" or backend != "openvino"):
        raise ValueError("texts to calibrate on are for dtype='int8' with backend='openvino'")
    told("finding it")
    source, full_name, _ = find_checkpoint(
        fspath(name), organisation=ORGANISATIONS.get(family or "", "sentence-transformers")
    )
    checkpoint = read_checkpoint(source, name=full_name, revision=None)
    kind = family or _family(checkpoint)
    stacks = stacks_for_graphs(assemble(checkpoint, kind, LoadOptions()))
    if not stacks:
        raise ModelUnsupported(f"{full_name} is made of static modules, which run on numpy; there is nothing to export")
    graphs = [GraphBackend(each, dtype, source, model=full_name) for each in _runtimes(backend)]
    add = partial(_add_graphs, stacks=tuple(stacks.values()), graphs=graphs, calibration=calibration, told=told)
    target = Path(out)
    if target.exists() and target.resolve() == source.resolve():
        add(target)
        warn_of_another(checkpoint, kind)
        return _found(target, kind)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is there already; name a new folder, or the model's own")
    target.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _copy(source, making)
        for folder in (making, *(each for each in making.rglob("*") if each.is_dir())):
            folder.chmod(0o755)  # the copy of a folder that may not be written to may
        add(making)
        _put(making, target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    warn_of_another(checkpoint, kind)
    return _found(target, kind)


def _copy(source: Path, making: Path) -> None:
    """Copy a model's files to an empty folder, which may lie within it; raises ModelBroken, naming it, for one that cannot be copied."""
    for path in _links(source):
        if not path.exists():
            raise ModelBroken(f"{path}: the link leads nowhere; remove it, or put there what it is to name")
        if path.parent.resolve().is_relative_to(path.resolve()):
            raise ModelBroken(f"{path}: the link leads back to a folder that it lies in; remove it")
    try:
        shutil.copytree(source, making, ignore=shutil.ignore_patterns(*OTHERS, making.name), dirs_exist_ok=True)
    except shutil.Error as error:
        (path, _, reason), *_ = error.args[0]
        raise ModelBroken(f"{path}: the file cannot be copied: {reason}") from error


def _links(folder: Path) -> Iterator[Path]:
    """The links among what is copied of a folder."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in OTHERS]
        named = (Path(place, name) for name in (*folders, *files) if name not in OTHERS)
        yield from (path for path in named if path.is_symlink())


def _put(making: Path, target: Path) -> None:
    """Rename a folder to a name that is free or an empty folder's; raises ValueError where somebody else has taken it meanwhile."""
    try:
        if target.exists():
            target.rmdir()
        making.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise ValueError(f"{target} is there already; name a new folder, or the model's own") from error


def _check(backend: str, dtype: str) -> None:
    """Raise ValueError for a backend that runs no graphs, and for a type that does not go with "auto"."""
    if backend in RUNTIMES:
        return
    if backend != "auto":
        raise ValueError(
            f"there are graphs for {' and '.join(RUNTIMES)}, not for backend {backend!r}; 'auto' writes one for each that is installed"
        )
    if dtype != "float32":
        raise ValueError(
            f"backend='auto' chooses among backends that give the same float32 numbers; for dtype={dtype!r} name the backend"
        )


def _runtimes(backend: str) -> tuple[str, ...]:
    """The runtimes that graphs are written for; raises ImportError where "auto" finds none installed."""
    if backend != "auto":
        return (backend,)
    installed = tuple(name for name in RUNTIMES if runtime(name).installed())
    if not installed:
        raise missing_extra("openvino", "writing graphs with backend='auto'")
    return installed


def _family(checkpoint: Checkpoint) -> str:
    """The class of a checkpoint; a plain folder is what its head is for, and where that is for words, the log says what was taken."""
    if checkpoint.entries:
        return checkpoint.family
    heads = [str(each) for each in checkpoint.config.get("architectures") or []]
    if any(each.endswith("ForSequenceClassification") for each in heads):
        return "CrossEncoder"
    if any(each.endswith("ForMaskedLM") for each in heads):
        logger.warning(
            "%s does not say what it gives, and is exported as a SentenceTransformer; for a SPLADE model name family='SparseEncoder' (--kind sparse)",
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
    """Make the graphs of stacks in a folder; what was made before, which may have been calibrated on other texts, stays until there is another."""
    for each, stack in product(graphs, stacks):
        _put_anew(
            folder / FOLDER / graph_key(stack, each.name, each.dtype),
            partial(each.make, stack, calibration=calibration, told=told),
        )


def _put_anew(place: Path, make: Callable[[Path], None]) -> None:
    """Put what ``make`` makes at a path that is free in the place of the folder there, which stays until then."""
    place.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=place.parent) as making:
        made = Path(making) / place.name
        make(made)
        if place.exists():
            place.rename(Path(making) / "before")
        made.rename(place)


def graph_places(engine: Engine) -> list[Path]:
    """The folders of a model's graphs, none for one on torch or numpy: to be looked up before its own files change, by which they are found."""
    graphs = engine.graphs
    return [] if graphs is None else [graphs.place(stack) for stack in stacks_for_graphs(engine.modules).values()]


def copy_graphs(places: Sequence[Path], engine: Engine, folder: Path, family: str, *, trust_remote_code: bool) -> None:
    """Put the graphs of a model, which lie at ``places``, beside its checkpoint that was saved in ``folder``, under the names that they have there."""
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
        _put_anew(folder / FOLDER / key, partial(write_graph, write=partial(_copy_of, place, limit)))


def _copy_of(place: Path, limit: tuple[int | None, ...], folder: Path) -> GraphSpec:
    """Copy a graph into an empty folder, with the maximum length in ``limit`` where one was set."""
    spec = copy_graph(place, folder)
    return replace(spec, max_length=limit[0]) if limit else spec


def _found(folder: Path, family: str) -> Exported:
    places = tuple(sorted(path.parent for path in (folder / FOLDER).glob("*/graph.json")))
    size = sum(file.stat().st_size for place in places for file in place.iterdir())
    return Exported(folder, family, places, size)
