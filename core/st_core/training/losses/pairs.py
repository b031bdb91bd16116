"""The losses of cross-encoders that read one document at a time: labels, margins, and negatives of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.training.columns import Contract, Label
from st_core.training.losses.distillation import margins_of
from st_core.training.losses.in_batch import is_mask
from st_core.training.losses.loss import Loss, row_labels
from st_core.training.parts import check_parts, computed_in_parts, with_cached_gradients

__all__ = [
    "BinaryCrossEntropyLoss",
    "CachedMultipleNegativesRankingLoss",
    "CrossEntropyLoss",
    "MSELoss",
    "MarginMSELoss",
    "MultipleNegativesRankingLoss",
    "PairLoss",
]

Texts = Sequence[Any]
"""The texts of a column, or lists of texts."""


class PairLoss(Loss):
    """The base of losses of the scores of pairs of texts; a prompt is put in front of the first texts.

    ``activation_fn`` is applied to the logits.
    """

    needs_one_score: ClassVar[bool] = True

    def __init__(self, model: Any, activation_fn: nn.Module | None = None) -> None:
        """Get the trainable form; raise ValueError for a model with several scores where the loss needs one."""
        super().__init__(model)
        self.activation_fn = nn.Identity() if activation_fn is None else activation_fn
        labels = getattr(model, "num_labels", 1)
        if self.needs_one_score and labels != 1:
            raise ValueError(f"{type(self).__name__} needs a model with one score, got one with {labels}")

    def logits(
        self,
        pairs: Sequence[tuple[str, str]],
        prompt: str | None = None,
        task: str | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Return the logits of pairs [n, scores], computed in parts of at most ``rows`` pairs of similar length."""
        features = self._features(pairs, prompt, task)
        return computed_in_parts(self.model, features, "scores", rows)

    def _features(self, pairs: Sequence[tuple[str, str]], prompt: str | None, task: str | None) -> dict[str, Any]:
        features = self.model.preprocess(list(pairs), prompt=prompt, task=task)
        device = self.model.device
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()}


class BinaryCrossEntropyLoss(PairLoss):
    """The binary cross-entropy of one score and a label from 0 to 1; ``pos_weight`` is the weight of positives."""

    contract = Contract(2, 2, Label.NUMBER, 0.0, 1.0)
    settings: ClassVar[tuple[str, ...]] = ("activation_fn", "pos_weight")

    def __init__(
        self, model: Any, activation_fn: nn.Module | None = None, pos_weight: Tensor | None = None, **kwargs: Any
    ) -> None:
        """Store the arguments; the others are those of ``torch.nn.BCEWithLogitsLoss``."""
        super().__init__(model, activation_fn)
        self.pos_weight = pos_weight
        self.error = nn.BCEWithLogitsLoss(pos_weight=pos_weight, **kwargs)

    def forward(
        self, inputs: Sequence[Texts], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of two columns of texts."""
        scores = self.activation_fn(self.logits(_pairs(inputs), prompt, task).reshape(-1))
        loss: Tensor = self.error(scores, row_labels(labels, len(scores), type(self).__name__).to(scores))
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the loss."""
        weight = None if self.pos_weight is None else self.pos_weight.tolist()
        return super().get_config_dict() | {"pos_weight": weight}


class CrossEntropyLoss(PairLoss):
    """The cross-entropy of the scores of classes and the number of a class."""

    contract = Contract(2, 2, Label.CLASS)
    settings: ClassVar[tuple[str, ...]] = ("activation_fn",)
    needs_one_score = False

    def __init__(self, model: Any, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        """Store the arguments; the others are those of ``torch.nn.CrossEntropyLoss``."""
        super().__init__(model, activation_fn)
        self.error = nn.CrossEntropyLoss(**kwargs)

    def forward(
        self, inputs: Sequence[Texts], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of two columns of texts."""
        scores = self.activation_fn(self.logits(_pairs(inputs), prompt, task))
        loss: Tensor = self.error(scores, row_labels(labels, len(scores), type(self).__name__).to(scores.device).long())
        return loss


class MSELoss(PairLoss):
    """The squared error of one score and that of a teacher."""

    contract = Contract(2, 2, Label.NUMBER)
    settings: ClassVar[tuple[str, ...]] = ("activation_fn",)

    def __init__(self, model: Any, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        """Store the arguments; the others are those of ``torch.nn.MSELoss``."""
        super().__init__(model, activation_fn)
        self.error = nn.MSELoss(**kwargs)

    def forward(
        self, inputs: Sequence[Texts], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of two columns of texts."""
        scores = self.activation_fn(self.logits(_pairs(inputs), prompt, task).reshape(-1))
        loss: Tensor = self.error(scores, row_labels(labels, len(scores), type(self).__name__).to(scores))
        return loss


class MarginMSELoss(PairLoss):
    """The squared error of the margin between the scores of a positive and of negatives, and that of a teacher.

    Columns are a query, its positive and one or more negatives; the label is the margin, the margins, or the scores of
    all documents.
    """

    contract = Contract(3, None, Label.SCORES)
    settings: ClassVar[tuple[str, ...]] = ("activation_fn",)

    def __init__(self, model: Any, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        """Store the arguments; the others are those of ``torch.nn.MSELoss``."""
        super().__init__(model, activation_fn)
        self.error = nn.MSELoss(**kwargs)

    def forward(
        self, inputs: Sequence[Texts], labels: Any, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of three or more columns of texts."""
        queries, *documents = inputs
        pairs = [pair for column in documents for pair in zip(queries, column, strict=True)]
        scores = self.activation_fn(self.logits(pairs, prompt, task).reshape(len(documents), -1)).T
        margins = scores[:, :1] - scores[:, 1:]
        loss: Tensor = self.error(margins, margins_of(labels, len(queries), len(documents) - 1).to(margins))
        return loss


class MultipleNegativesRankingLoss(PairLoss):
    """The cross-entropy of the positive among documents of other rows and negatives of its own.

    ``num_negatives`` documents of other rows are drawn for each query, None takes all. Logits are scaled after the
    activation; with the default, a sigmoid and the scale 10, they are at most 10.
    """

    contract = Contract(2, None, has_batch_negatives=True)
    settings: ClassVar[tuple[str, ...]] = ("num_negatives", "scale", "activation_fn")

    def __init__(
        self,
        model: Any,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: nn.Module | None = nn.Sigmoid(),  # noqa: B008 - it has no state
    ) -> None:
        """Store the arguments."""
        super().__init__(model, activation_fn)
        self.num_negatives = num_negatives
        self.scale = scale

    def forward(
        self,
        inputs: Sequence[Texts],
        labels: Tensor | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Return the loss of two or more columns of texts; ``labels`` may be a mask of known positives."""
        pairs = list(self._candidates(inputs, labels))
        return self._loss(self.logits(pairs, prompt, task), len(inputs[0]))

    def _candidates(self, inputs: Sequence[Texts], labels: Tensor | None) -> Iterator[tuple[str, str]]:
        """Yield the pairs of all queries with their first candidate, the positive, then with the second, and so on."""
        queries, *columns = inputs
        yield from zip(queries, columns[0], strict=True)
        documents = [text for column in columns for text in column]
        known = labels.cpu() if is_mask(labels) else None
        for places in _other_rows(len(queries), len(columns), self.num_negatives, known).T.tolist():
            yield from ((query, documents[place]) for query, place in zip(queries, places, strict=True))
        for column in columns[1:]:
            yield from zip(queries, column, strict=True)

    def _loss(self, logits: Tensor, queries: int) -> Tensor:
        scores = self.activation_fn(logits.reshape(-1, queries).T) * (self.scale or 1.0)
        return functional.cross_entropy(scores, torch.zeros(queries, dtype=torch.long, device=scores.device))


def _other_rows(rows: int, columns: int, count: int | None, known: Tensor | None = None) -> Tensor:
    """Return for each row the positions [n, count] of documents of other rows, of which ``count`` are drawn.

    ``known`` positives [n, columns * n] are not among them; then all rows have as many documents as the one with most
    known positives.
    """
    is_other = ~torch.eye(rows, dtype=torch.bool).repeat(1, columns)
    if known is not None:
        is_other &= ~known
    numbers = is_other.sum(dim=1)
    available = int(numbers.min())
    if (count is not None and count < available) or int(numbers.max()) > available:
        drawn = available if count is None else min(count, available)
        return torch.multinomial(is_other.float(), drawn) if drawn else torch.empty(rows, 0, dtype=torch.long)
    return torch.arange(rows * columns).repeat(rows, 1)[is_other].reshape(rows, available)


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """:class:`MultipleNegativesRankingLoss` for batches that are scored in parts of ``mini_batch_size`` pairs."""

    settings: ClassVar[tuple[str, ...]] = (*MultipleNegativesRankingLoss.settings, "mini_batch_size")

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: nn.Module | None = nn.Sigmoid(),  # noqa: B008 - it has no state
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,  # noqa: ARG002 - parts have no bar
    ) -> None:
        """Store the arguments after checking them."""
        super().__init__(model, num_negatives, scale, activation_fn)
        check_parts(mini_batch_size, None)
        self.mini_batch_size = mini_batch_size

    def forward(
        self,
        inputs: Sequence[Texts],
        labels: Tensor | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Return the loss of two or more columns of texts; ``labels`` may be a mask of known positives."""
        features = self._features(list(self._candidates(inputs, labels)), prompt, task)
        loss: Tensor = with_cached_gradients(
            self.model,
            [features],
            lambda logits: self._loss(logits[0], len(inputs[0])),
            "scores",
            rows=self.mini_batch_size,
        )
        return loss


def _pairs(inputs: Sequence[Texts]) -> list[tuple[str, str]]:
    """Return the pairs of two columns; raise ValueError for another number of columns."""
    if len(inputs) != 2:
        raise ValueError(f"the loss reads two columns of texts, got {len(inputs)}")
    return list(zip(*inputs, strict=True))
