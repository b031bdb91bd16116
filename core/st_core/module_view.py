"""Modules of a loaded model as ``model[0]`` returns them: they read as modules and pass settings on to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, overload

from st_core.module_settings import SETTINGS, Place, module_at
from st_core.modules import Module
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer
from st_core.printed import printed, settings_of

if TYPE_CHECKING:
    from st_core.engine.engine import Engine

__all__ = ["ModuleView", "module_of", "view"]

_OF_MODEL = ("max_seq_length", "tokenizer")
"""Attributes of the first module of a stack that are attributes of the model here."""


class Owner(Protocol):
    """A model whose modules are viewed."""

    _engine: Engine

    def _set_in_module(self, place: Place, name: str, value: object) -> None: ...


class ModuleView:
    """A module of a model: an instance of its class for ``isinstance``, with the current settings.

    Settings that can be changed are those of :data:`st_core.module_settings.SETTINGS`; others raise AttributeError
    with what to use instead. A setting holds from the next call on. Do not change settings while another thread uses
    the model.
    """

    __slots__ = ("_model", "_place")

    _model: Owner
    _place: Place

    def __init__(self, model: Owner, place: Place) -> None:
        """Store the model and the place of the module in it."""
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_place", place)

    @property  # type: ignore[misc] # a class that isinstance reads and nobody sets
    def __class__(self) -> type:
        """The class of the module, so that ``isinstance`` recognises it."""
        return type(module_of(self))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module, by the name here or in sentence-transformers."""
        module = module_of(self)
        if name in (*_OF_MODEL, "preprocess", "processor", "tokenize") and module.reads_text:
            return getattr(self._model, name)
        own = self._of_transformer(module) if isinstance(module, Transformer) else {}
        own = self._of_router(module) if isinstance(module, Router) else own
        if name in own:
            return own[name]()
        settings = {} if hasattr(module, name) else settings_of(module)
        return settings[name] if name in settings else getattr(module, name)

    def _of_transformer(self, module: Transformer) -> Mapping[str, Callable[[], object]]:
        """Return the attributes that a transformer has in sentence-transformers, as functions."""
        factory = self._model._engine.factory  # noqa: SLF001 - a part of the model
        return {
            "auto_model": lambda: factory.library(module),
            "config": lambda: factory.config(module),
            "do_lower_case": lambda: module.lower_case,
            "document_length": lambda: module.task_lengths.get("document"),
            "model": lambda: factory.library(module),
            "query_length": lambda: module.task_lengths.get("query"),
        }

    def _of_router(self, module: Router) -> Mapping[str, Callable[[], object]]:
        """Return the attributes that a router has in sentence-transformers, as functions."""
        return {
            "default_route": lambda: module.default,
            "sub_modules": lambda: {
                route: [view(self._model, (*self._place, route, index)) for index in range(len(stack))]
                for route, stack in module.routes.items()
            },
        }

    def __setattr__(self, name: str, value: object) -> None:
        module = module_of(self)
        if name in _OF_MODEL and module.reads_text and name not in SETTINGS.get(type(module), {}):
            setattr(self._model, name, value)
        else:
            self._model._set_in_module(self._place, name, value)  # noqa: SLF001 - a part of the model

    def __delattr__(self, name: str) -> None:
        delattr(module_of(self), name)

    def __eq__(self, other: object) -> bool:
        return bool(module_of(self) == module_of(other))

    def __hash__(self) -> int:
        return hash(module_of(self))

    def __reduce__(self) -> tuple[object, ...]:
        return module_of, (module_of(self),)  # a copy or a pickle of a view is the module

    def __repr__(self) -> str:
        return printed(module_of(self))

    def get_config_dict(self) -> dict[str, object]:
        """Return the settings of the module with the names of sentence-transformers."""
        return dict(settings_of(module_of(self)))

    def get_embedding_dimension(self) -> int | None:
        """Return the width of the feature that the module writes."""
        return module_of(self).dimension

    get_sentence_embedding_dimension = get_word_embedding_dimension = get_embedding_dimension

    def get_max_seq_length(self) -> int | float | None:
        """Return the maximum number of tokens of a text."""
        length: int | float | None = self.max_seq_length
        return length


@overload
def module_of(value: Module | ModuleView) -> Module: ...
@overload
def module_of(value: object) -> object: ...
def module_of(value: object) -> object:
    """Return the module behind a view; return other values unchanged."""
    if not issubclass(type(value), ModuleView):
        return value
    model, place = object.__getattribute__(value, "_model"), object.__getattribute__(value, "_place")
    return module_at(model._engine.modules, place)  # noqa: SLF001 - a part of the model


def view(model: Owner, place: Place) -> ModuleView:
    """Return the module of a model at a place, as a view whose class has the name of the module's class."""
    module: Module = module_at(model._engine.modules, place)  # noqa: SLF001 - a part of the model
    return _kind(type(module).__name__)(model, place)


@cache
def _kind(name: str) -> type[ModuleView]:
    return type(name, (ModuleView,), {"__slots__": (), "__doc__": ModuleView.__doc__})
