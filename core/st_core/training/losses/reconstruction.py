"""The loss of a sparse auto-encoder: what its few concepts lose of a dense vector (CSR, arXiv 2503.01776)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from st_core.backends.torch.modules import BACKBONE, SparseAutoEncoderStep
from st_core.training.losses.loss import EmbeddingLoss, Loss
from st_core.training.losses.splade import SparseMultipleNegativesRankingLoss
from st_core.training.parts import computed_in_parts

__all__ = ["CSRLoss", "CSRReconstructionLoss"]

ACTIVE = 1e-5
"""The value above which a concept counts as used."""

WIDER = 4
"""How many times the concepts of a vector a second, wider reconstruction has."""


@dataclass(frozen=True, slots=True)
class _Latent:
    """Concepts of vectors before the selection [n, h], and the mean and the deviation [n, 1] of the vectors."""

    concepts: Tensor
    mean: Tensor | float
    deviation: Tensor | float


class CSRReconstructionLoss(Loss):
    """The error of vectors that are reconstructed from their largest concepts, and from four times as many.

    Concepts that no vector has had for a number of batches, ``dead_threshold`` of the module, reconstruct what is left,
    with the weight ``beta``. Raises ValueError for a model without a SparseAutoEncoder.
    """

    settings: ClassVar[tuple[str, ...]] = ("beta",)

    unused: Tensor
    """For each concept [h], the number of selections since one contained it."""

    def __init__(self, model: Any, beta: float = 1.0) -> None:
        """Get the trainable form of a model."""
        super().__init__(model)
        steps = [each for each in self.model.modules() if isinstance(each, SparseAutoEncoderStep)]
        if len(steps) != 1:
            raise ValueError(f"CSR needs a model with one SparseAutoEncoder, got {len(steps)}; add one to the modules")
        self.beta = beta
        self.register_buffer("unused", torch.zeros(len(steps[0].weight), dtype=torch.long))

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:  # noqa: ARG002
        """Raise ValueError."""
        raise ValueError("CSRReconstructionLoss is part of CSRLoss and no loss of its own")

    def compute_loss_from_vectors(self, columns: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the parts of the loss of dense vectors [n, d] of each column, and the sparse vectors [n, h]."""
        step = next(each for each in self.model.modules() if isinstance(each, SparseAutoEncoderStep))
        results = [self._of_column(step, vectors) for vectors in columns]
        few, wide, rest = (torch.stack([parts[place] for parts, _ in results]).mean() for place in range(3))
        parts = {
            "reconstruction_loss_k": few,
            "reconstruction_loss_4k": wide / 8.0,
            "reconstruction_loss_aux": self.beta * rest,
        }
        return parts, [encoded for _, encoded in results]

    def _of_column(self, step: SparseAutoEncoderStep, vectors: Tensor) -> tuple[list[Tensor], Tensor]:
        latent = _latent(step, vectors)
        encoded = self._selected(latent.concepts, step.value.keep)
        unused = self._of_unused(step, latent.concepts)
        wider = self._selected(latent.concepts, WIDER * step.value.keep)
        few = _decoded(step, encoded, latent)
        losses = [functional.mse_loss(vectors, each) for each in (few, _decoded(step, wider, latent))]
        if unused is None:
            return [*losses, torch.zeros_like(losses[0])], encoded
        before = step.before * latent.deviation
        left = vectors - (few - before).detach()
        recovered = (unused @ step.weight + step.before) * latent.deviation
        return [*losses, _relative_error(recovered, left)], encoded

    def _selected(self, concepts: Tensor, count: int) -> Tensor:
        """Return concepts [n, h] with only the largest of each row, and in training count the batches without one."""
        top = concepts.topk(min(count, concepts.shape[-1]), dim=-1)
        if self.training and torch.is_grad_enabled():
            is_used = torch.zeros_like(self.unused, dtype=torch.bool)
            is_used[top.indices[top.values > ACTIVE]] = True
            self.unused.copy_(torch.where(is_used, 1, self.unused + 1))
        return torch.zeros_like(concepts).scatter_(-1, top.indices, top.values).relu()

    def _of_unused(self, step: SparseAutoEncoderStep, concepts: Tensor) -> Tensor | None:
        """Return the largest concepts [n, h] among those that have not been used for long; None if it has no part."""
        count, threshold = step.value.unused
        if not count:
            return None
        top = (concepts * (self.unused > threshold)).topk(min(count, concepts.shape[-1]))
        return torch.zeros_like(concepts).scatter_(-1, top.indices, top.values).relu()


def _latent(step: SparseAutoEncoderStep, vectors: Tensor) -> _Latent:
    if not step.value.normalize:
        return _Latent(functional.linear(vectors - step.before, step.weight, step.bias), 0.0, 1.0)
    mean = vectors.mean(dim=-1, keepdim=True)
    deviation = (vectors - mean).std(dim=-1, keepdim=True)
    scaled = (vectors - mean) / (deviation + 1e-5)
    return _Latent(functional.linear(scaled - step.before, step.weight, step.bias), mean, deviation)


def _decoded(step: SparseAutoEncoderStep, encoded: Tensor, latent: _Latent) -> Tensor:
    """Return the vectors [n, d] that concepts [n, h] stand for."""
    return (encoded @ step.weight + step.before) * latent.deviation + latent.mean


def _relative_error(vectors: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error of vectors [n, d] over the variance of the wanted ones, where these differ."""
    variance = functional.mse_loss(wanted.mean(dim=0).expand_as(wanted), wanted)
    are_equal = (variance == 0) | (wanted == wanted[:1]).all()
    return functional.mse_loss(vectors, wanted) / torch.where(are_equal, 1.0, variance)


class CSRLoss(Loss):
    """A loss of sparse vectors, and what these lose of the dense vectors before the SparseAutoEncoder.

    ``loss`` is one of those for sparse vectors, by default in-batch negatives, with the weight ``gamma``; ``beta`` is
    the weight of the concepts that are not used.
    """

    settings: ClassVar[tuple[str, ...]] = ("beta", "gamma")

    def __init__(self, model: Any, loss: Any = None, beta: float = 0.1, gamma: float = 1.0) -> None:
        """Store the arguments; raise ValueError for a model or a loss that does not fit."""
        super().__init__(model)
        self.reconstruction_loss = CSRReconstructionLoss(model, beta)
        self.loss = SparseMultipleNegativesRankingLoss(model) if loss is None else loss
        if not isinstance(self.loss, EmbeddingLoss):
            raise ValueError(f"CSRLoss needs a loss of vectors, got {type(loss).__name__}")  # noqa: TRY004 - as SpladeLoss
        self.contract = self.loss.contract
        self.beta = beta
        self.gamma = gamma

    def forward(
        self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the parts of the loss of a batch: three of the reconstruction, and base_loss."""
        columns = [computed_in_parts(self.model, each, BACKBONE) for each in sentence_features]
        parts, encoded = self.reconstruction_loss.compute_loss_from_vectors(columns)
        base = self.loss.compute_loss_from_embeddings(encoded, labels)
        own = base if isinstance(base, Mapping) else {"base_loss": base}
        return parts | {name: value * self.gamma for name, value in own.items()}

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the loss."""
        return {"loss": type(self.loss).__name__, **super().get_config_dict()}
