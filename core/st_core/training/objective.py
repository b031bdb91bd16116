"""The module that is trained: the losses of all data sets, and in each of them the trainable form of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from st_core.model import Model
from st_core.training.form import Form, form_of

__all__ = ["Objective", "Parts"]

Parts = dict[str, Tensor]
"""The parts of a loss by name; their sum is minimised."""


class Objective(nn.Module):
    """The losses of a training by the name of the data set; the name "" stands for all of them."""

    def __init__(self, losses: Mapping[str, nn.Module], form: Form) -> None:
        """Register the losses; raise ValueError for one that does not contain the model's trainable form."""
        super().__init__()
        self.names = tuple(losses)
        self.losses = nn.ModuleList(losses.values())
        self.form = form
        for loss in losses.values():
            _use_form(loss, form)
            own = {id(each) for each in loss.parameters()}
            if not any(id(each) in own for each in form.parameters()):
                raise ValueError(
                    f"{type(loss).__name__} does not contain the model that is trained; pass the same model to the "
                    "loss and to the trainer"
                )

    def loss_of(self, name: str) -> nn.Module:
        """Return the loss of a data set."""
        place = self.names.index(name) if name in self.names else 0
        loss: nn.Module = self.losses[place]
        return loss

    def forward(
        self,
        features: Sequence[Any],
        label: Any = None,
        dataset_name: str = "",
        rows: Sequence[int] | None = None,  # noqa: ARG002 - names the batch in messages
        options: Mapping[str, Any] | None = None,
    ) -> Parts:
        """Return the loss of a batch of one data set under "loss", with its parts and what it measured."""
        loss = self.loss_of(dataset_name)
        with self.form.shared_embeddings():
            value = loss(list(features), label, **(options or {}))
        measures = getattr(loss, "measures", {})
        if isinstance(value, Mapping):
            return {"loss": torch.stack(list(value.values())).sum(), **value, **measures}
        return {"loss": value, **measures}

    def named_own(self) -> list[tuple[str, nn.Parameter]]:
        """Return all parameters with the names that they have in their loss, after the data set if there are several.

        Names of parameters of the model begin with ``model.``, as in sentence-transformers.
        """
        found: dict[int, tuple[str, nn.Parameter]] = {}
        for name, loss in zip(self.names, self.losses, strict=True):
            for inner, parameter in loss.named_parameters():
                found.setdefault(id(parameter), (f"{name}.{inner}" if name else inner, parameter))
        return list(found.values())

    def extra_state_dict(self) -> dict[str, Tensor]:
        """Return the parameters and buffers of the losses that are not those of the model."""
        model = {id(each) for each in (*self.form.parameters(), *self.form.buffers())}
        tensors = [*self.losses.named_parameters(), *self.losses.named_buffers()]
        return {name: value.detach() for name, value in tensors if id(value) not in model}

    def load_extra_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the parameters and buffers that :meth:`extra_state_dict` returned; raise ValueError for others."""
        own = self.extra_state_dict()
        if own.keys() != tensors.keys():
            names = ", ".join(sorted(own.keys() ^ tensors.keys()))
            raise ValueError(f"the losses have other parameters than those of the checkpoint: {names}")
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Compute activations again in the backward pass, in every transformer that can."""
        for module in self.form.modules():
            enable: Any = getattr(module, "gradient_checkpointing_enable", None)
            if module is not self.form and enable is not None:
                enable(gradient_checkpointing_kwargs=gradient_checkpointing_kwargs)


def _use_form(loss: nn.Module, form: Form) -> None:
    """Replace loaded models in a loss, whose weights do not change, by their trainable form."""
    for module in [each for each in loss.modules() if each is not form]:
        for name, value in list(vars(module).items()):
            if isinstance(value, Model) and form_of(value) is form:
                delattr(module, name)
                setattr(module, name, form)
