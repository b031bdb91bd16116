"""Transformers of fewer layers, and models that read a changed form of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import nn

from st_core.backends.torch.modules import TransformerStep
from st_core.model import Model
from st_core.saving.made import Home
from st_core.training.form import Form

if TYPE_CHECKING:
    from st_core.modules import Module

__all__ = ["changed_model", "evenly_spaced", "transformer_of", "with_layers"]

AnyModel = TypeVar("AnyModel", bound=Model)

Rewrite = Callable[[Path], None]
"""Changes the files in the folder of a transformer that was written."""


def evenly_spaced(count: int, total: int) -> tuple[int, ...]:
    """Return ``count`` of the layers 0 to ``total`` - 1, the first and the last among them, evenly spaced.

    Raises ValueError for a count that is not from 1 to ``total``.
    """
    if not 1 <= count <= total:
        raise ValueError(f"expected 1 to {total} layers, those of the model, got {count}")
    return tuple(round(place) for place in np.linspace(0, total - 1, count).tolist())


def with_layers(model: AnyModel, layers: int | Sequence[int]) -> AnyModel:
    """Return a model whose transformer has only some of its layers, in their order.

    ``layers`` are their numbers from 0 on, or how many of them, evenly spaced. Prompts and settings are those of the
    model. Raises ValueError for layers that the transformer does not have, for a model without exactly one transformer,
    and for a transformer whose layers cannot take each other's places.
    """

    def change(step: TransformerStep) -> None:
        owner, name, stack = _stack(step)
        chosen = evenly_spaced(layers, len(stack)) if isinstance(layers, int) else tuple(layers)
        _check(chosen, stack)
        setattr(owner, name, nn.ModuleList(stack[place] for place in chosen))
        config: Any = step.model.config
        types = getattr(config, "layer_types", None)
        config.num_hidden_layers = len(chosen)
        if types is not None:
            config.layer_types = [types[place] for place in chosen]

    return changed_model(model, change)


def changed_model(
    model: AnyModel, change: Callable[[TransformerStep], None], rewrite: Rewrite | None = None
) -> AnyModel:
    """Return a model whose transformer was changed by a function, with the settings of the model.

    ``rewrite`` changes the files of the transformer that are written for it, such as those of its tokenizer. The files
    of the new model live as long as the model. Raises ValueError for a model without exactly one transformer.
    """
    form = Form(model)
    change(transformer_of(form))
    home, result = Home(), deepcopy(model)
    with TemporaryDirectory() as place:
        modules: Sequence[Module] = form.written(Path(place))
        if rewrite is not None:
            rewrite(Path(place) / "transformer_0")
        model._save(modules, home.folder, None, card=False)  # noqa: SLF001 - of this package
    result._base = model._origin  # noqa: SLF001
    result._reload(home)  # noqa: SLF001
    return result


def transformer_of(form: nn.Module) -> TransformerStep:
    """Return the only transformer of a trainable form; raise ValueError for another number of them."""
    steps = [each for each in form.modules() if isinstance(each, TransformerStep)]
    if len(steps) != 1:
        raise ValueError(f"expected a model with one transformer, got {len(steps)}; choose another model")
    return steps[0]


def _stack(step: TransformerStep) -> tuple[nn.Module, str, nn.ModuleList]:
    """Return the list of layers of a transformer, with the module that contains it and its name there."""
    model: Any = step.model
    count = getattr(model.config, "num_hidden_layers", None)
    found = {
        name: each for name, each in model.named_modules() if isinstance(each, nn.ModuleList) and len(each) == count
    }
    outer = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    if len(outer) != 1:
        raise ValueError(
            f"{type(model).__name__}: expected one list of its {count} layers, got {len(outer)}; such a transformer "
            "cannot be cut"
        )
    owner, _, name = outer[0].rpartition(".")
    return model.get_submodule(owner), name, found[outer[0]]


def _check(chosen: Sequence[int], stack: nn.ModuleList) -> None:
    """Raise ValueError for layers that do not exist or repeat, and where one cannot take the place of another."""
    if not chosen or any(not 0 <= place < len(stack) for place in chosen) or sorted(set(chosen)) != list(chosen):
        listed = ", ".join(map(str, chosen)) or "none"
        raise ValueError(f"expected ascending numbers of layers from 0 to {len(stack) - 1}, got {listed}")
    for place, old in enumerate(chosen):
        if _shapes(stack[place]) != _shapes(stack[old]):
            raise ValueError(f"layer {old} has other weights than layer {place}, whose place it would take")


def _shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in layer.state_dict().items()}
