"""The settings of modules in the form in which they are saved and printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from st_core.checkpoint.files import last_name
from st_core.modules import Module
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer

__all__ = ["printed", "settings_of", "tree"]


def settings_of(module: Module) -> Mapping[str, object]:
    """Return the settings of a module with the names of sentence-transformers, without weights."""
    if isinstance(module, Transformer):
        return module.configuration()
    files = module.save().json
    settings = next((value for name, value in files.items() if name.endswith("config.json")), {})
    return settings if isinstance(settings, dict) else {}


def printed(module: Module) -> str:
    """Return a module as text with its settings, and a router with its routes on further lines."""
    name = last_name(module.type_path)
    if isinstance(module, Router):
        routes = _indented(tree("Sequential", stack, f"({route}): ") for route, stack in module.routes.items())
        default = [] if module.default is None else [f"default_route={module.default!r}"]
        lines = [*default, f"(sub_modules): ModuleDict(\n{routes}\n)"]
        return f"{name}(\n{_indented(lines)}\n)"
    settings = dict(settings_of(module))
    if isinstance(module, Transformer) and module.config.get("architectures"):
        settings["architecture"] = str(module.config["architectures"][0])
    return f"{name}({settings})"


def tree(name: str, modules: Sequence[Module], label: str = "") -> str:
    """Return a list of modules as text, with one module per line as torch prints modules."""
    lines = (f"({index}): {printed(module)}" for index, module in enumerate(modules))
    return f"{label}{name}(\n{_indented(lines)}\n)"


def _indented(lines: Iterable[str]) -> str:
    return "\n".join("  " + line.replace("\n", "\n  ") for line in lines)
