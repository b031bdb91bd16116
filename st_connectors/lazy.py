"""Import the public names of a package, and the functions of a plugin whose driver may be missing, on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["lazy_attributes", "lazy_function"]


def lazy_attributes(
    package: str, modules: Mapping[str, str], *, extra: str = "", drivers: Collection[str] = ()
) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package that imports each public name from its submodule on first use.

    ``modules`` maps names to submodules of the package; a name that was imported once is set on the package. Raises
    AttributeError for any other name, and ImportError as :func:`lazy_function` does.
    """

    def load_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(_import_module(f"{package}.{modules[name]}", extra, drivers), name)
        setattr(sys.modules[package], name, value)
        return value

    return load_attribute


def lazy_function(module: str, name: str, *, extra: str, drivers: Collection[str]) -> Callable[..., Any]:
    """Return a function that imports ``module`` when it is called and calls its function ``name``.

    ``drivers`` are the top-level modules that the extra installs. If one of them is missing, the call raises
    ImportError with the command that installs the extra.
    """

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(_import_module(module, extra, drivers), name)(*arguments, **options)

    return call


def _import_module(name: str, extra: str, drivers: Collection[str]) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in drivers:
            raise
        from st_core.install import install_command

        raise ImportError(f"{error.name} is missing: {install_command(extra)}") from error
