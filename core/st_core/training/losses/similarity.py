"""Losses of pairs and triplets of vectors: similarities and distances that labels or the columns prescribe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.training.columns import Contract, Label
from st_core.training.losses.loss import EmbeddingLoss, row_labels
from st_core.util.similarity import (
    pairwise_angle_sim,
    pairwise_cos_sim,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)

__all__ = [
    "AnglELoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "CosineSimilarityLoss",
    "OnlineContrastiveLoss",
    "SiameseDistanceMetric",
    "TripletDistanceMetric",
    "TripletLoss",
]

Pairwise: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def _euclidean(left: Tensor, right: Tensor) -> Tensor:
    return functional.pairwise_distance(left, right, p=2)


def _manhattan(left: Tensor, right: Tensor) -> Tensor:
    return functional.pairwise_distance(left, right, p=1)


def _cosine_distance(left: Tensor, right: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(left, right)


def _far_cosine(left: Tensor, right: Tensor) -> Tensor:
    return 1 - pairwise_cos_sim(left, right)


def _far_euclidean(left: Tensor, right: Tensor) -> Tensor:
    return -pairwise_euclidean_sim(left, right)


def _far_manhattan(left: Tensor, right: Tensor) -> Tensor:
    return -pairwise_manhattan_sim(left, right)


class SiameseDistanceMetric:
    """Distances [n] of contrastive losses."""

    EUCLIDEAN = staticmethod(_euclidean)
    MANHATTAN = staticmethod(_manhattan)
    COSINE_DISTANCE = staticmethod(_cosine_distance)


class TripletDistanceMetric:
    """Distances [n] of the triplet loss."""

    COSINE = staticmethod(_far_cosine)
    EUCLIDEAN = staticmethod(_far_euclidean)
    MANHATTAN = staticmethod(_far_manhattan)


def ranked_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return log(1 + sum of exp(score of the lower - score of the higher)) over all pairs with different labels.

    ``scores`` and ``labels`` are [n]. The sum over the higher labels of each score is a cumulative one, so that no
    matrix of all pairs is computed.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    ordered, order = (labels.int() if labels.dtype == torch.bool else labels).sort()
    scores = scores[order]
    from_here = torch.logcumsumexp(-scores.flip(0), dim=0).flip(0)
    above = torch.cat([from_here, scores.new_full((1,), -torch.inf)])[torch.searchsorted(ordered, ordered, right=True)]
    return torch.cat([scores.new_zeros(1), scores + above]).logsumexp(dim=0)


class CoSENTLoss(EmbeddingLoss):
    """Orders the similarities of pairs as their labels; ``scale`` is the inverse of the temperature."""

    contract = Contract(2, 2, Label.NUMBER, is_retrieval=False)
    settings: ClassVar[tuple[str, ...]] = ("scale", "similarity_fct")

    def __init__(self, model: Any, scale: float = 20.0, similarity_fct: Pairwise = pairwise_cos_sim) -> None:
        """Store the arguments."""
        super().__init__(model)
        self.scale = scale
        self.similarity_fct = similarity_fct

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of two columns [n, d] with one label for each pair."""
        labels = row_labels(labels, len(embeddings[0]), type(self).__name__)
        return ranked_loss(self.similarity_fct(embeddings[0], embeddings[1]) * self.scale, labels)


class AnglELoss(CoSENTLoss):
    """Orders the angles of pairs in complex space as their labels.

    With more than two columns the second is similar to the first, by its label or by 1 without labels, and the others
    are as dissimilar.
    """

    contract = Contract(2, None, Label.NUMBER, is_retrieval=False, is_label_optional=True)
    settings: ClassVar[tuple[str, ...]] = ("scale",)

    def __init__(self, model: Any, scale: float = 20.0) -> None:
        """Store the arguments."""
        super().__init__(model, scale, pairwise_angle_sim)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of two columns [n, d] with labels, or of more with or without labels."""
        first, *others = embeddings
        if len(others) == 1:
            return super().compute_loss_from_embeddings(embeddings, labels)
        labels = first.new_ones(len(first)) if labels is None else row_labels(labels, len(first), "AnglELoss")
        every = torch.cat([labels, (1 - labels).repeat(len(others) - 1)])
        return super().compute_loss_from_embeddings([first.repeat(len(others), 1), torch.cat(others)], every)


class CosineSimilarityLoss(EmbeddingLoss):
    """The error of the cosines of pairs, after a transformation, compared with labels from -1 to 1."""

    contract = Contract(2, 2, Label.NUMBER, -1.0, 1.0, is_retrieval=False)
    settings: ClassVar[tuple[str, ...]] = ("loss_fct", "cos_score_transformation")

    def __init__(
        self, model: Any, loss_fct: nn.Module | None = None, cos_score_transformation: nn.Module | None = None
    ) -> None:
        """Store the error, by default the squared one, and the transformation, by default none."""
        super().__init__(model)
        self.loss_fct = nn.MSELoss() if loss_fct is None else loss_fct
        self.cos_score_transformation = nn.Identity() if cos_score_transformation is None else cos_score_transformation

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of two columns [n, d] with one label for each pair."""
        labels = row_labels(labels, len(embeddings[0]), type(self).__name__)
        cosines = self.cos_score_transformation(functional.cosine_similarity(embeddings[0], embeddings[1]))
        loss: Tensor = self.loss_fct(cosines, labels.to(cosines.dtype))
        return loss


class TripletLoss(EmbeddingLoss):
    """How much closer than a margin the negative of an anchor is, compared with the positive."""

    contract = Contract(3, 3)
    settings: ClassVar[tuple[str, ...]] = ("distance_metric", "triplet_margin")

    def __init__(
        self, model: Any, distance_metric: Pairwise = TripletDistanceMetric.EUCLIDEAN, triplet_margin: float = 5
    ) -> None:
        """Store the arguments."""
        super().__init__(model)
        self.distance_metric = distance_metric
        self.triplet_margin = triplet_margin

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:  # noqa: ARG002 - there are none
        """Return the loss of anchors, positives and negatives [n, d]."""
        anchor, positive, negative = embeddings
        gap = self.distance_metric(anchor, positive) - self.distance_metric(anchor, negative)
        return functional.relu(gap + self.triplet_margin).mean()


class ContrastiveLoss(EmbeddingLoss):
    """Half the squared distance of similar pairs, and of how far others are within a margin."""

    contract = Contract(2, 2, Label.BINARY, is_retrieval=False)
    settings: ClassVar[tuple[str, ...]] = ("distance_metric", "margin", "size_average")

    def __init__(
        self,
        model: Any,
        distance_metric: Pairwise = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
        size_average: bool = True,
    ) -> None:
        """Store the arguments; without ``size_average`` the losses of pairs are summed."""
        super().__init__(model)
        self.distance_metric = distance_metric
        self.margin = margin
        self.size_average = size_average

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of two columns [n, d] with the labels 0 or 1."""
        distances = self.distance_metric(embeddings[0], embeddings[1])
        similar = row_labels(labels, len(distances), type(self).__name__).to(distances.dtype)
        losses = similar * distances**2 + (1 - similar) * functional.relu(self.margin - distances) ** 2
        return 0.5 * (losses.mean() if self.size_average else losses.sum())


class OnlineContrastiveLoss(EmbeddingLoss):
    """The sum of contrastive losses of hard pairs.

    A similar pair is hard if another pair that is not similar is closer, and the other way round.
    """

    contract = Contract(2, 2, Label.BINARY, is_retrieval=False)
    settings: ClassVar[tuple[str, ...]] = ("distance_metric", "margin")

    def __init__(
        self, model: Any, distance_metric: Pairwise = SiameseDistanceMetric.COSINE_DISTANCE, margin: float = 0.5
    ) -> None:
        """Store the arguments."""
        super().__init__(model)
        self.distance_metric = distance_metric
        self.margin = margin

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of two columns [n, d] with the labels 0 or 1."""
        distances = self.distance_metric(embeddings[0], embeddings[1])
        labels = row_labels(labels, len(distances), type(self).__name__)
        near, far = distances[labels == 1], distances[labels == 0]
        hard_far = far[far < (near.max() if len(near) else far.mean())]
        hard_near = near[near > (far.min() if len(far) else near.mean())]
        return (hard_near**2).sum() + (functional.relu(self.margin - hard_far) ** 2).sum()
