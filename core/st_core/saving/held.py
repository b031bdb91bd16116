"""Keep the files of loaded transformers open, so that a model can be saved after its folder is removed or replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from st_core.modules.router import Router
from st_core.modules.transformer import Transformer, saved_files

if TYPE_CHECKING:
    from st_core.modules import Module

__all__ = ["HeldFiles", "hold", "with_files"]


class HeldFiles:
    """The open files of one folder; their content is that of the files that were loaded, wherever the names lead now.

    No file is kept open on Windows, where an open file cannot be removed.
    """

    def __init__(self, folder: Path) -> None:
        """Open the files that saving the transformer in a folder copies or converts."""
        self._files: dict[str, int] = {}
        self._folder = folder
        if os.name == "nt":
            return
        with suppress(OSError):  # no more open files are allowed, or one is gone: the model loads all the same
            for path in saved_files(folder):
                self._files[path.name] = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        for file in self._files.values():
            with suppress(OSError):
                os.close(file)

    def __deepcopy__(self, _memo: object) -> HeldFiles:
        return self

    def has_moved(self) -> bool:
        """Return whether one of the names leads to no file, or to another file than it did on loading."""
        return any(not _is_same(file, self._folder / name) for name, file in self._files.items())

    def restore(self, folder: Path) -> None:
        """Write the files to a folder."""
        for name, file in self._files.items():
            with os.fdopen(os.dup(file), "rb") as source, (folder / name).open("wb") as target:
                source.seek(0)
                shutil.copyfileobj(source, target)


def hold(modules: Sequence[Module]) -> dict[Path, HeldFiles]:
    """Open the files of all transformers among the modules; return them by folder."""
    return {module.folder: HeldFiles(module.folder) for module in _transformers(modules)}


@contextmanager
def with_files(modules: Sequence[Module], held: Mapping[Path, HeldFiles]) -> Iterator[Sequence[Module]]:
    """Yield the modules; folders that were removed or replaced since loading are restored in temporary folders.

    Without such folders, ``modules`` itself is yielded.
    """
    with ExitStack() as stack:
        moved: dict[Path, Path] = {}
        for folder, files in held.items():
            if files.has_moved():
                moved[folder] = Path(stack.enter_context(TemporaryDirectory()))
                files.restore(moved[folder])
        yield [_moved(module, moved) for module in modules] if moved else modules


def _transformers(modules: Sequence[Module]) -> Iterator[Transformer]:
    for module in modules:
        if isinstance(module, Transformer):
            yield module
        elif isinstance(module, Router):
            for route in module.routes.values():
                yield from _transformers(route)


def _moved(module: Module, folders: Mapping[Path, Path]) -> Module:
    """Return a module with other folders; a module that a router uses twice stays one."""
    if isinstance(module, Transformer) and module.folder in folders:
        return replace(module, folder=folders[module.folder])
    if isinstance(module, Router):
        known = {id(each): _moved(each, folders) for route in module.routes.values() for each in route}
        routes = {name: tuple(known[id(each)] for each in route) for name, route in module.routes.items()}
        return replace(module, routes=routes)
    return module


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
