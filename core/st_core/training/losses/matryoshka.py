"""A loss at several widths of the vectors, so that they can be truncated."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from st_core.training.losses.loss import EmbeddingLoss, Loss

__all__ = ["MatryoshkaLoss"]

logger = logging.getLogger(__name__)


class MatryoshkaLoss(Loss):
    """The weighted sum of a loss of vectors that are truncated to several widths and scaled to unit length.

    With ``n_dims_per_step`` that number of widths is drawn at each step. Raises ValueError for widths that the model
    does not have.
    """

    settings: ClassVar[tuple[str, ...]] = ("matryoshka_dims", "matryoshka_weights", "n_dims_per_step")

    def __init__(
        self,
        model: Any,
        loss: EmbeddingLoss,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        """Store the arguments after checking them, with the largest width first."""
        super().__init__(model)
        weights = [1] * len(matryoshka_dims) if matryoshka_weights is None else list(matryoshka_weights)
        _check_widths(matryoshka_dims, weights, self.model.get_embedding_dimension())
        if not isinstance(loss, EmbeddingLoss):
            raise TypeError(f"MatryoshkaLoss needs a loss of embeddings of st_core, got {type(loss).__name__}")
        self.loss = loss
        self.contract = loss.contract
        ordered = sorted(zip(matryoshka_dims, weights, strict=True), key=lambda each: each[0], reverse=True)
        self.matryoshka_dims = tuple(width for width, _ in ordered)
        self.matryoshka_weights = tuple(weight for _, weight in ordered)
        self.n_dims_per_step = n_dims_per_step

    def forward(self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None) -> Any:
        """Return the loss of a batch."""
        features = [dict(each) for each in sentence_features]
        targets, widths = self.loss.targets(features, labels), self._drawn()
        return self.loss.embedded(features, lambda embeddings: self._sum(embeddings, targets, widths))

    def _drawn(self) -> list[int]:
        """Return the positions of the widths of a step."""
        every = list(range(len(self.matryoshka_dims)))
        if 0 < self.n_dims_per_step < len(every):
            return sorted(random.sample(every, self.n_dims_per_step))
        return every

    def _sum(self, embeddings: Sequence[Tensor], targets: Any, widths: Iterable[int]) -> Tensor:
        full = embeddings[0].shape[-1]
        losses = []
        for place in widths:
            width = self.matryoshka_dims[place]
            cut = [functional.normalize(each[..., :width], dim=-1) for each in embeddings]
            loss = self.loss.compute_loss_from_embeddings(cut, _cut_vectors(targets, full, width))
            losses.append(self.matryoshka_weights[place] * loss)
        return torch.stack(losses).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the loss."""
        return {"loss": type(self.loss).__name__, **super().get_config_dict()}


def _cut_vectors(targets: Any, full: int, width: int) -> Any:
    """Return vectors of a teacher of the model's width truncated; other targets are returned unchanged."""
    is_vectors = isinstance(targets, Tensor) and targets.is_floating_point() and targets.ndim in (2, 3)
    return targets[..., :width] if is_vectors and targets.shape[-1] == full else targets


def _check_widths(widths: Sequence[int], weights: Sequence[float], full: int | None) -> None:
    if not widths or any(width < 1 for width in widths):
        raise ValueError(f"matryoshka_dims must be positive numbers, got {list(widths)}")
    if len(weights) != len(widths):
        raise ValueError(f"matryoshka_weights must have {len(widths)} weights, got {len(weights)}")
    if full is not None and max(widths) > full:
        raise ValueError(f"matryoshka_dims has {max(widths)}, and the vectors have {full} dimensions")
    if full is not None and full not in widths:
        logger.warning("matryoshka_dims=%s lacks the full width %d, which is not trained", list(widths), full)
