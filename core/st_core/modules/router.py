"""One stack of modules per task: ``router_config.json``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_core.checkpoint.files import inside, read_json
from st_core.errors import ModelBroken
from st_core.modules import Module, ModuleFiles, load_module

TEXT = "text"


@dataclass(frozen=True, slots=True, eq=False)
class Router:
    """``routes`` are stacks by name; ``mappings`` lead from (task, modality), where None stands for any, to a route."""

    routes: Mapping[str, tuple[Module, ...]]
    default: str | None
    mappings: Mapping[tuple[str | None, str | None], str] = field(default_factory=dict)

    @property
    def dimension(self) -> int | None:
        """The width of the first route that says it."""
        return next((width for stack in self.routes.values() if (width := stack_dimension(stack)) is not None), None)

    def resolve(self, task: str | None) -> tuple[Module, ...]:
        """The stack for a task; raises ValueError for a task without a route."""
        for key in ((task, TEXT), (task, None), (None, TEXT), (None, None)):
            if key in self.mappings:
                return self.routes[self.mappings[key]]
        name = task if task in self.routes else TEXT if TEXT in self.routes else None
        if name is None and task is None:
            name = self.default
        if name is None:
            known = ", ".join(sorted(self.routes))
            raise ValueError(f"no route for the task {task!r}; there are {known}")
        return self.routes[name]


def stack_dimension(stack: tuple[Module, ...]) -> int | None:
    """The width of what a stack puts out: of the last module that has one."""
    return next((width for module in reversed(stack) if (width := module.dimension) is not None), None)


def load(files: ModuleFiles) -> Router:
    """Read the router and the modules of all routes; a module that two routes name is loaded once."""
    path = files.folder / "router_config.json"
    if not path.is_file():
        path = files.folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelBroken(f"{path}: expected a JSON object")
    modules = {name: _module(files, name, str(kind), path) for name, kind in config["types"].items()}
    routes = {route: tuple(modules[name] for name in names) for route, names in config["structure"].items()}
    if not routes or not all(routes.values()):
        raise ModelBroken(f"{path}: a router needs at least one route, and each route a module")
    return _checked(routes, config.get("parameters") or {}, path)


def _module(files: ModuleFiles, name: str, kind: str, path: Path) -> Module:
    folder = inside(files.folder, name, path)
    if folder.resolve() == files.folder.resolve():
        raise ModelBroken(f"{path}: the module {name!r} lies in the router's own folder")
    return load_module(kind, ModuleFiles(files.root, folder, kind, files.options))


def _checked(routes: dict[str, tuple[Module, ...]], parameters: Mapping[str, Any], path: Path) -> Router:
    default = parameters.get("default_route")
    if default is None and parameters.get("allow_empty_key", True):
        default = next(iter(routes))
    mappings = {_key(key, path): str(route) for key, route in (parameters.get("route_mappings") or {}).items()}
    missing = {route for route in (*mappings.values(), default) if route is not None and route not in routes}
    if missing:
        raise ModelBroken(f"{path}: routes {sorted(missing)} are named but not there; there are {sorted(routes)}")
    return Router(routes, default, mappings)


def _key(text: str, path: Path) -> tuple[str | None, str | None]:
    try:
        task, modality = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError) as error:
        raise ModelBroken(f"{path}: {text!r} is not a pair of task and modality") from error
    return task, modality if isinstance(modality, str) else None if modality is None else "+".join(modality)
