"""Losses that compare a model with a teacher: by margins, by distributions of scores, or by vectors."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.training.columns import Contract, Label
from st_core.training.losses.loss import EmbeddingLoss
from st_core.util.similarity import pairwise_dot_score

__all__ = ["DistillKLDivLoss", "EmbedDistillLoss", "MSELoss", "MarginMSELoss", "margins_of"]

logger = logging.getLogger(__name__)

Pairwise: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def margins_of(labels: Tensor | Sequence[Tensor] | None, rows: int, negatives: int) -> Tensor:
    """Return the margins [n, negatives] between the positive and each negative.

    ``labels`` are margins, of which a single one may be a number, or scores of the positive and all negatives. Raises
    ValueError for another shape.
    """
    if labels is None:
        raise ValueError("margins need labels: the scores of the documents, or the margins between them")
    if not isinstance(labels, Tensor):
        labels = torch.stack(list(labels))
    if labels.shape == (rows,):
        labels = labels[:, None]
    if labels.shape == (rows, negatives + 1):
        labels = labels[:, :1] - labels[:, 1:]
    if labels.shape != (rows, negatives):
        raise ValueError(
            f"each row needs {negatives} margins, or the scores of {negatives + 1} documents; got labels of shape "
            f"{tuple(labels.shape)}"
        )
    return labels.detach()


class MarginMSELoss(EmbeddingLoss):
    """The squared error of the margin between the scores of positive and negatives.

    Columns are a query, its positive and one or more negatives; the label is the teacher's margin, the margins, or the
    scores of all documents. The default similarity is the inner product: margins of a cross-encoder may reach 20, those
    of normalised vectors 2.
    """

    contract = Contract(3, None, Label.SCORES)
    settings: ClassVar[tuple[str, ...]] = ("similarity_fct",)

    def __init__(self, model: Any, similarity_fct: Pairwise = pairwise_dot_score) -> None:
        """Store the arguments."""
        super().__init__(model)
        self.similarity_fct = similarity_fct

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of queries, positives and one or more columns of negatives [n, d]."""
        query, positive, *negatives = embeddings
        margins = margins_of(labels, len(query), len(negatives))
        score = self.similarity_fct(query, positive)
        found = torch.stack([score - self.similarity_fct(query, each) for each in negatives], dim=1)
        return functional.mse_loss(found, margins.to(found.dtype))


class DistillKLDivLoss(EmbeddingLoss):
    """The divergence of the scores of a query's documents from those of a teacher, both as distributions.

    Columns are a query and two or more documents; the label has the teacher's score of each document. ``temperature``
    softens both distributions, unless the student or the teacher has a temperature of its own.
    """

    contract = Contract(3, None, Label.SCORES)
    settings: ClassVar[tuple[str, ...]] = (
        "similarity_fct",
        "temperature",
        "student_temperature",
        "teacher_temperature",
    )

    def __init__(
        self,
        model: Any,
        similarity_fct: Pairwise = pairwise_dot_score,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for a temperature that is not positive."""
        super().__init__(model)
        self.similarity_fct = similarity_fct
        self.temperature = temperature
        self.student_temperature = temperature if student_temperature is None else student_temperature
        self.teacher_temperature = temperature if teacher_temperature is None else teacher_temperature
        for name in ("temperature", "student_temperature", "teacher_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        self._was_checked = False

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of queries and of two or more columns of documents [n, d]."""
        query, *documents = embeddings
        shape = (len(query), len(documents))
        if labels is None or labels.shape != shape:
            found = None if labels is None else tuple(labels.shape)
            raise ValueError(
                f"each row needs the teacher's scores of {shape[1]} documents; got labels of shape {found}"
            )
        scores = torch.stack([self.similarity_fct(query, each) for each in documents], dim=1)
        teacher = torch.softmax(labels.detach() / self.teacher_temperature, dim=1)
        self._check(teacher, labels)
        student = torch.log_softmax(scores / self.student_temperature, dim=1)
        divergence = functional.kl_div(student, teacher.to(student.dtype), reduction="batchmean")
        return divergence * self.student_temperature**2

    def _check(self, teacher: Tensor, labels: Tensor) -> None:
        """Warn once where the temperature makes some of the teacher's probabilities zero."""
        if not self._was_checked and bool((teacher == 0).any()):
            spread = float((labels.amax(dim=1) - labels.amin(dim=1)).max())
            logger.warning(
                "the teacher's scores differ by up to %.1f, so that some documents have no weight; use a "
                "teacher_temperature above %.3g",
                spread,
                spread / 100,
            )
        self._was_checked = True


class EmbedDistillLoss(EmbeddingLoss):
    """The distance of vectors from those of a teacher, which are the labels.

    A label is one vector for all columns, or one for each. With ``projection_dim`` a linear projection, which is
    trained too, maps the vectors of the model to the width of the teacher's.
    """

    contract = Contract(1, None, Label.VECTOR, is_retrieval=False)
    settings: ClassVar[tuple[str, ...]] = ("distance_metric", "projection_dim")

    def __init__(
        self,
        model: Any,
        distance_metric: Literal["mse", "l2", "cosine"] = "cosine",
        projection_dim: int | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for an unknown distance."""
        super().__init__(model)
        if distance_metric not in ("mse", "l2", "cosine"):
            raise ValueError(f"distance_metric must be mse, l2 or cosine, got {distance_metric!r}")
        self.distance_metric = distance_metric
        self.projection_dim = projection_dim
        self.projection: nn.Linear | None = None
        if projection_dim is not None:
            width = self.model.get_embedding_dimension()
            assert width is not None
            self.projection = nn.Linear(width, projection_dim, device=self.model.device)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Any) -> Tensor:
        """Return the mean of the losses of all columns [n, d]; labels are [n, d] or [n, columns, d]."""
        losses = [
            self._distance(own, teacher)
            for own, teacher in zip(embeddings, _columns_of(labels, len(embeddings)), strict=True)
        ]
        return torch.stack(losses).mean()

    def _distance(self, own: Tensor, teacher: Tensor) -> Tensor:
        teacher = teacher.detach().to(own.device, own.dtype)
        if self.projection is not None:
            own = self.projection(own)
        if self.distance_metric == "mse":
            return functional.mse_loss(own, teacher)
        if self.distance_metric == "l2":
            norms: Tensor = torch.linalg.vector_norm(own - teacher, dim=-1)
            return norms.mean()
        distances: Tensor = 1 - functional.cosine_similarity(own, teacher, dim=-1)
        return distances.mean()

    def save_projection(self, path: str | PathLike[str]) -> None:
        """Save the projection as a safetensors file; raise ValueError if there is none."""
        from safetensors.torch import save_file

        if self.projection is None:
            raise ValueError("there is no projection to save; construct the loss with projection_dim=…")
        save_file(self.projection.state_dict(), fspath(path))

    def load_projection(self, path: str | PathLike[str]) -> None:
        """Load a projection that was saved; raise ValueError for one of other widths."""
        from safetensors.torch import load_file

        tensors = load_file(fspath(path))
        width, into = tensors["weight"].shape[1], tensors["weight"].shape[0]
        own = self.model.get_embedding_dimension()
        if width != own or self.projection_dim not in (None, into):
            raise ValueError(
                f"the projection maps {width} to {into} dimensions; expected {own} to {self.projection_dim}"
            )
        self.projection, self.projection_dim = nn.Linear(width, into, device=self.model.device), into
        self.projection.load_state_dict(tensors)


def _columns_of(labels: Any, columns: int) -> list[Tensor]:
    """Return the teacher's vectors [n, d] for each column; raise ValueError for labels of another shape."""
    if isinstance(labels, (list, tuple)):
        return list(labels)
    if labels is not None and labels.ndim == 2:
        return [labels] * columns
    if labels is not None and labels.ndim == 3 and labels.shape[1] == columns:
        return list(labels.unbind(dim=1))
    found = None if labels is None else tuple(labels.shape)
    raise ValueError(f"each row needs one vector of the teacher, or {columns}; got labels of shape {found}")


class MSELoss(EmbedDistillLoss):
    """The squared error of vectors compared with those of a teacher, which are the labels."""

    settings: ClassVar[tuple[str, ...]] = ("projection_dim",)

    def __init__(self, model: Any, projection_dim: int | None = None) -> None:
        """Store the arguments."""
        super().__init__(model, "mse", projection_dim)
