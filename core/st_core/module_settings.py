"""The settings of modules that can be changed after loading, by the names that sentence-transformers has for them.

A setting is a function from a module and a value to another module. A module itself never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from st_core.modules import Module, advice_of_setting
from st_core.modules.dense import Dense
from st_core.modules.pooling import MODES, Pooling
from st_core.modules.router import Router
from st_core.modules.sparse_auto_encoder import SparseAutoEncoder
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.transformer import Transformer
from st_core.text.tokens import is_length

__all__ = ["SETTINGS", "changed", "module_at", "with_module"]

Place = tuple[int | str, ...]
"""The index of a module in the list, for a module of a route followed by the name of the route and an index in it."""

Setting = Callable[[Any, object], Module]


def _pooling_mode(module: Pooling, value: object) -> Pooling:
    modes = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not modes or not set(modes) <= set(MODES):
        raise ValueError(f"pooling_mode is {value!r}; expected one or more of {', '.join(MODES)}")
    return replace(module, modes=modes)


def _include_prompt(module: Pooling, value: object) -> Pooling:
    return replace(module, include_prompt=bool(value))


def _pooling_strategy(module: SpladePooling, value: object) -> SpladePooling:
    return replace(module, summed=_one_of("pooling_strategy", value, ("max", "sum")) == "sum")


def _splade_activation(module: SpladePooling, value: object) -> SpladePooling:
    return replace(module, doubled=_one_of("activation_function", value, ("relu", "log1p_relu")) == "log1p_relu")


def _activation(module: Dense, value: object) -> Dense:
    """Set the activation to a module of torch without arguments, a class of such modules, or its dotted path."""
    if value is None:
        value = "torch.nn.modules.linear.Identity"
    kind: str | type = value if isinstance(value, (str, type)) else type(value)
    path = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    if not path.startswith("torch.nn."):
        raise ValueError(f"activation_function is {value!r}; expected a module of torch.nn, or its dotted path")
    if not isinstance(value, (str, type)) and repr(value) != repr(type(value)()):
        raise ValueError(f"activation_function is {value!r}; a module that is saved by name has no arguments")
    return replace(module, activation=path)


def _default_route(module: Router, value: object) -> Router:
    default = None if value is None else str(_one_of("default_route", value, tuple(module.routes)))
    return replace(module, default=default)


def _keep(module: SparseAutoEncoder, value: object) -> SparseAutoEncoder:
    if not is_length(value) or value > module.weight.shape[0]:
        raise ValueError(f"k is {value!r}; expected a number from 1 to {module.weight.shape[0]}")
    return replace(module, keep=int(value))


def _task_length(task: str) -> Setting:
    def set_length(module: Transformer, value: object) -> Transformer:
        others = {name: limit for name, limit in module.task_lengths.items() if name != task}
        if value is not None and not is_length(value):
            raise ValueError(f"{task}_length must be a positive integer, or None for no limit, got {value!r}")
        return replace(module, task_lengths=others if value is None else {**others, task: int(value)})

    return set_length


def _one_of(name: str, value: object, known: Sequence[str]) -> object:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    return value


SETTINGS: Mapping[type, Mapping[str, Setting]] = {
    Dense: {"activation_function": _activation},
    Pooling: {"include_prompt": _include_prompt, "pooling_mode": _pooling_mode},
    Router: {"default_route": _default_route},
    SparseAutoEncoder: {"k": _keep},
    SpladePooling: {"activation_function": _splade_activation, "pooling_strategy": _pooling_strategy},
    Transformer: {"document_length": _task_length("document"), "query_length": _task_length("query")},
}
"""The settings of each type of module."""


def changed(module: Module, name: str, value: object) -> Module:
    """Return a module with another setting.

    Raises AttributeError, with what to use instead, for a setting that does not change, and ValueError for a value that
    the setting does not have.
    """
    settings = SETTINGS.get(type(module), {})
    if name not in settings:
        raise AttributeError(advice_of_setting(type(module).__name__, name, tuple(settings)))
    return settings[name](module, value)


def module_at(modules: Sequence[Module], place: Place) -> Module:
    """Return the module at a place."""
    module = modules[int(place[0])]
    if len(place) == 1:
        return module
    assert isinstance(module, Router)
    return module_at(module.routes[str(place[1])], place[2:])


def with_module(modules: Sequence[Module], old: Module, new: Module) -> tuple[Module, ...]:
    """Return modules in which one is replaced, also in routes; routers without it stay the same objects."""
    return tuple(_with(module, old, new) for module in modules)


def _with(module: Module, old: Module, new: Module) -> Module:
    if module is old:
        return new
    if isinstance(module, Router) and any(each is old for each in _inside(module)):
        return replace(module, routes={name: with_module(stack, old, new) for name, stack in module.routes.items()})
    return module


def _inside(router: Router) -> Iterator[Module]:
    """Yield the modules in the routes of a router, those of routers in it included."""
    for stack in router.routes.values():
        for module in stack:
            yield module
            if isinstance(module, Router):
                yield from _inside(module)
