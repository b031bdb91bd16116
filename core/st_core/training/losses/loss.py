"""The base of all losses: what a loss reads, and how it gets embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from st_core.training.columns import Contract
from st_core.training.form import form_of
from st_core.training.parts import Function, computed_in_parts

__all__ = ["EmbeddingLoss", "Loss", "name_of", "row_labels"]


OUTPUT = "sentence_embedding"


class Loss(nn.Module):
    """A loss function of a model, which becomes trainable here unless it already is."""

    contract: Contract
    """What the loss reads."""

    settings: ClassVar[tuple[str, ...]] = ()
    """The names of the arguments that describe the loss, which are attributes of it."""

    measures: Mapping[str, Tensor]
    """What the last batch measured beside the loss, to be logged."""

    def __init__(self, model: Any) -> None:
        """Get the trainable form of a model."""
        super().__init__()
        self.model = form_of(model)
        self.measures = {}

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the loss, for model cards and for comparison with a checkpoint."""
        return {name: name_of(getattr(self, name)) for name in self.settings}


class EmbeddingLoss(Loss):
    """A loss that is a function of the embeddings of its columns."""

    def forward(self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None) -> Any:
        """Return the loss of a batch; ``sentence_features`` are the tokens of each text column."""
        features = [dict(each) for each in sentence_features]
        targets = self.targets(features, labels)
        return self.embedded(features, lambda embeddings: self.compute_loss_from_embeddings(embeddings, targets))

    def targets(self, features: Sequence[Mapping[str, Any]], labels: Tensor | None) -> Any:  # noqa: ARG002 - for subclasses
        """Return what embeddings are compared with: the labels."""
        return labels

    def embedded(self, features: Sequence[dict[str, Any]], function: Function) -> Any:
        """Return a function of the embeddings of all columns."""
        return function([computed_in_parts(self.model, each, OUTPUT) for each in features])

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Any) -> Any:
        """Return the loss of the embeddings [n, d] of each column."""
        raise NotImplementedError


def name_of(value: Any) -> Any:
    """Return the name of a function, of a class or of the class of a module; other values are returned unchanged."""
    if isinstance(value, nn.Module):
        return type(value).__name__
    return getattr(value, "__name__", value)


def row_labels(labels: Tensor | None, rows: int, loss: str) -> Tensor:
    """Return one label for each row [n]; raise ValueError for another number of labels."""
    if labels is None or labels.numel() != rows:
        shape = None if labels is None else tuple(labels.shape)
        raise ValueError(f"{loss} needs one label for each of {rows} rows, got labels of shape {shape}")
    return labels.reshape(-1)
