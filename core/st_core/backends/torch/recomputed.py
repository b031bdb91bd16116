"""Compute the activations of an encoder's layers again in the backward pass.

The result of an activation function has four times the size of a layer's states, and so has what it is computed from.
The product after it needs the result for its gradient, and the function needs its own input. Only the input is stored,
except within autocast, where products convert the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from st_core.backends.torch.encoder import FORMS

__all__ = ["recompute_activations"]

SMOOTH = frozenset(("GELU", "GELUActivation", "GELUTanh", "SiLU", "SiLUActivation"))
"""Classes of functions that store their input. A ReLU stores its result, which the product after it then shares."""


def recompute_activations(model: Any) -> None:
    """Change the layers of a model of transformers in place; one whose layers have none of the ``FORMS`` stays."""
    for form in FORMS:
        try:
            layers = list(model.base_model.get_submodule(form["layers"]))
            pairs = [[layer.get_submodule(form[name]) for name in ("act", "down")] for layer in layers]
        except (AttributeError, TypeError):
            continue
        for layer, (act, down) in zip(layers, pairs, strict=True):
            if type(down) is nn.Linear and type(act).__name__ in SMOOTH:
                down.__class__ = _Product
                layer.set_submodule(form["act"], _Activation(act))


class _Activation(nn.Module):
    """An activation function whose result knows what it was computed from."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, states: Tensor) -> Tensor:
        result: Any = self.act(states)
        if torch.is_grad_enabled():
            result.recompute = (self.act, states, result._version)  # noqa: SLF001 - has no public name
        return result  # type: ignore[no-any-return]


class _Product(nn.Linear):
    """A product that stores what its input was computed from in place of the input, where that is known."""

    def forward(self, states: Tensor) -> Tensor:
        known = getattr(states, "recompute", None)
        if known is None or not torch.is_grad_enabled() or torch.is_autocast_enabled(states.device.type):
            return super().forward(states)
        act, inner, version = known
        if version != states._version:  # noqa: SLF001 - the result was changed in place
            return super().forward(states)
        result: Tensor = _Recomputed.apply(states, act, inner, self.weight, self.bias)
        return result


class _Recomputed(torch.autograd.Function):
    """The product of an activation with a matrix, of which the input of the activation is stored."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any, states: Tensor, act: Callable[[Tensor], Tensor], inner: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Return the product."""
        ctx.save_for_backward(inner, weight)
        ctx.act = act
        return functional.linear(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of states, matrix and bias."""
        inner, weight = ctx.saved_tensors
        of_states, _, _, of_weight, of_bias = ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            gradient @ weight if of_states else None,
            None,
            None,
            flat.T @ ctx.act(inner).reshape(-1, inner.shape[-1]) if of_weight else None,
            flat.sum(dim=0) if of_bias else None,
        )
