"""A module with one stack per task: ``router_config.json``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from st_core.checkpoint.files import JsonObject, inside, last_name, read_object
from st_core.errors import ModelBroken
from st_core.modules import SENTENCE_EMBEDDING, Module, ModuleFiles, Parts, load_module, unchangeable

__all__ = ["Router", "stack_dimension"]

_TEXT = "text"


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class Router:
    """Selects one of its stacks by task.

    ``routes`` are stacks by name; ``mappings`` are names of routes by (task, modality), where None stands for any task
    or modality.
    """

    type_path: ClassVar[str] = "sentence_transformers.base.modules.router.Router"
    old_names: ClassVar[tuple[str, ...]] = ("Asym",)
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    routes: Mapping[str, tuple[Module, ...]]
    default: str | None
    mappings: Mapping[tuple[str | None, str | None], str] = field(default_factory=dict)

    @property
    def dimension(self) -> int | None:
        """The width of the first route that defines one."""
        return next((width for stack in self.routes.values() if (width := stack_dimension(stack)) is not None), None)

    def resolve(self, task: str | None) -> tuple[Module, ...]:
        """Return the stack of a task; raise ValueError for a task without a route."""
        for key in ((task, _TEXT), (task, None), (None, _TEXT), (None, None)):
            if key in self.mappings:
                return self.routes[self.mappings[key]]
        name = task if task in self.routes else _TEXT if _TEXT in self.routes else None
        if name is None and task is None:
            name = self.default
        if name is None:
            raise ValueError(f"no route for the task {task!r}; expected one of {', '.join(sorted(self.routes))}")
        return self.routes[name]

    @classmethod
    def load(cls, files: ModuleFiles) -> Router:
        """Return the router in a folder with the modules of all routes; a module of several routes is loaded once."""
        path = files.folder / "router_config.json"
        config = read_object(path if path.is_file() else files.folder / "config.json")
        types = config.nested("types")
        modules = {name: _load_child(files, name, str(type_path), config.path) for name, type_path in types.items()}
        structure = config.nested("structure")
        routes = {route: tuple(modules[str(name)] for name in structure.array(route)) for route in structure}
        if not routes or not all(routes.values()):
            raise ModelBroken(f"{config.path}: expected at least one route, and at least one module per route")
        return _checked(routes, config.nested("parameters"))

    def save(self) -> Parts:
        """Return the configuration and the modules of all routes; a module of several routes is saved once."""
        names: dict[int, str] = {}
        children: dict[str, Module] = {}
        structure: dict[str, list[str]] = {}
        for route, stack in self.routes.items():
            for index, module in enumerate(stack):
                name = names.setdefault(id(module), f"{route}_{index}_{last_name(module.type_path)}")
                children[name] = module
                structure.setdefault(route, []).append(name)
        parameters = {
            "default_route": self.default,
            "allow_empty_key": self.default is not None,
            "route_mappings": {str(key): route for key, route in self.mappings.items()},
        }
        types = {name: module.type_path for name, module in children.items()}
        config = {"types": types, "structure": structure, "parameters": parameters}
        return Parts({"router_config.json": config}, children=children)


def stack_dimension(stack: tuple[Module, ...]) -> int | None:
    """Return the width of a stack's result, which is that of the last module that defines one."""
    return next((width for module in reversed(stack) if (width := module.dimension) is not None), None)


def _load_child(files: ModuleFiles, name: str, type_path: str, listing: Path) -> Module:
    folder = inside(files.folder, name, listing)
    if folder.resolve() == files.folder.resolve():
        raise ModelBroken(f"{listing}: the module {name!r} lies in the router's own folder")
    return load_module(ModuleFiles(files.root, folder, type_path, files.options))


def _checked(routes: dict[str, tuple[Module, ...]], parameters: JsonObject) -> Router:
    """Return a router; raise ModelBroken where its parameters name a route that does not exist."""
    path = parameters.path
    default = parameters.get("default_route")
    if default is None and parameters.boolean("allow_empty_key", default=True):
        default = next(iter(routes))
    mappings = {_key(key, path): str(route) for key, route in parameters.nested("route_mappings").items()}
    missing = {str(route) for route in (*mappings.values(), default) if route is not None and route not in routes}
    if missing:
        raise ModelBroken(f"{path}: unknown routes {sorted(missing)}; expected some of {sorted(routes)}")
    return Router(routes, None if default is None else str(default), mappings)


def _key(text: str, path: Path) -> tuple[str | None, str | None]:
    """Return the task and the modality in a key such as ``"('query', 'text')"``."""
    try:
        task, modality = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError) as error:
        raise ModelBroken(f"{path}: route_mappings: expected a pair of task and modality, got {text!r}") from error
    return task, modality if isinstance(modality, str) else None if modality is None else "+".join(modality)
