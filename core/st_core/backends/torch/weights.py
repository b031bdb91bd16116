"""The weights of a model by the names that sentence-transformers has for them, as copies.

They are inference tensors: torch raises RuntimeError for changes in place, and for gradients, outside of inference
mode, so that nobody changes a copy in the belief that it is the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from st_core.modules.router import Router
from st_core.modules.sparse_auto_encoder import SparseAutoEncoder
from st_core.modules.transformer import Transformer

if TYPE_CHECKING:
    from st_core.modules import Module

__all__ = ["buffers_of", "parameters_of", "state_of"]

Library = Callable[[Transformer], nn.Module]
"""Loads the object of transformers for a transformer."""

_BUFFERS = ("stats_last_nonzero",)
"""Names of saved tensors that training counts and does not learn."""


def state_of(modules: Sequence[Module], library: Library) -> dict[str, torch.Tensor]:
    """Return the weights of modules by name; weights that two modules share are listed under both names."""
    state: dict[str, torch.Tensor] = {}
    for place, module in _places(modules):
        if isinstance(module, Transformer):
            weights = library(module).state_dict(keep_vars=True)  # without it, torch returns changeable views
            state |= {f"{place}.model.{name}": value for name, value in weights.items()}
        else:
            state |= {f"{place}.{name}": value for name, value in _tensors(module)}
        if isinstance(module, SparseAutoEncoder):  # its decoder is the transposed encoder
            state[f"{place}.decoder.linear.weight"] = state[f"{place}.encoder.weight"]
    return state


def parameters_of(modules: Sequence[Module], library: Library) -> dict[str, torch.Tensor]:
    """Return the parameters of modules by name, a parameter that two modules share once."""
    found: dict[str, torch.Tensor] = {}
    for place, module in _distinct(modules):
        if isinstance(module, Transformer):
            found |= {f"{place}.model.{name}": value for name, value in library(module).named_parameters()}
        else:
            found |= {f"{place}.{name}": value for name, value in _tensors(module) if name not in _BUFFERS}
    return found


def buffers_of(modules: Sequence[Module], library: Library) -> dict[str, torch.Tensor]:
    """Return the buffers of modules by name, those of a module that two routes share once."""
    found: dict[str, torch.Tensor] = {}
    for place, module in _distinct(modules):
        if isinstance(module, Transformer):
            found |= {f"{place}.model.{name}": value for name, value in library(module).named_buffers()}
        elif isinstance(module, SparseAutoEncoder):
            found |= {f"{place}.{name}": value for name, value in _tensors(module) if name in _BUFFERS}
    return found


def _distinct(modules: Sequence[Module]) -> Iterator[tuple[str, Module]]:
    """Yield each module with the first of its places."""
    seen: set[int] = set()
    for place, module in _places(modules):
        if id(module) not in seen:
            seen.add(id(module))
            yield place, module


def _places(modules: Sequence[Module], prefix: str = "") -> Iterator[tuple[str, Module]]:
    """Yield each module with its place in the list, for a router those of its routes."""
    for index, module in enumerate(modules):
        if isinstance(module, Router):
            for route, stack in module.routes.items():
                yield from _places(stack, f"{prefix}{index}.sub_modules.{route}.")
        else:
            yield f"{prefix}{index}", module


def _tensors(module: Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a module that are saved with it."""
    with torch.inference_mode():
        for name, array in module.save().tensors.items():
            if array is not None:
                yield name, torch.from_numpy(np.ascontiguousarray(array)).clone()
