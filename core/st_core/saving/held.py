"""Save a model after the folders of its transformers were removed or replaced, from the files that it keeps open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from st_core.checkpoint.held import HeldFiles
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer, saved_files

if TYPE_CHECKING:
    from st_core.modules import Module

__all__ = ["hold", "transformers_in", "with_files"]


def hold(modules: Sequence[Module]) -> dict[Path, HeldFiles]:
    """Open the files of all transformers among the modules; return them by folder."""
    folders = dict.fromkeys(module.folder for module in transformers_in(modules))
    return {folder: HeldFiles(folder, saved_files(folder)) for folder in folders}


@contextmanager
def with_files(modules: Sequence[Module], held: Mapping[Path, HeldFiles]) -> Iterator[Sequence[Module]]:
    """Yield the modules; folders that were removed or replaced since loading are restored in temporary folders.

    Without such folders, ``modules`` itself is yielded.
    """
    with ExitStack() as stack:
        moved = {folder: stack.enter_context(files.at_hand()) for folder, files in held.items() if files.has_moved()}
        yield [_moved(module, moved) for module in modules] if moved else modules


def transformers_in(modules: Sequence[Module]) -> Iterator[Transformer]:
    """Yield the transformers among modules and in their routers."""
    for module in modules:
        if isinstance(module, Transformer):
            yield module
        elif isinstance(module, Router):
            for route in module.routes.values():
                yield from transformers_in(route)


def _moved(module: Module, folders: Mapping[Path, Path]) -> Module:
    """Return a module with other folders; a module that a router uses twice stays one."""
    if isinstance(module, Transformer) and module.folder in folders:
        return replace(module, folder=folders[module.folder])
    if isinstance(module, Router):
        known = {id(each): _moved(each, folders) for route in module.routes.values() for each in route}
        routes = {name: tuple(known[id(each)] for each in route) for name, route in module.routes.items()}
        return replace(module, routes=routes)
    return module
