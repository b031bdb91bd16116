"""Make batches of examples: tokens of each text column, and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from st_core.training.columns import Label
from st_core.training.examples import Example
from st_core.training.known import Known

__all__ = ["Collator", "PairCollator", "Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the text columns of a data set are read: the prompt and the route of each, in the order of the loss.

    ``label`` is the form of labels, and ``known`` contains the known positives of queries.
    """

    prompts: tuple[str | None, ...]
    tasks: tuple[str | None, ...]
    label: Label
    known: Known | None = None


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes batches of examples of one data set; ``preprocess`` is that of the trainable form."""

    preprocess: Callable[..., Mapping[str, Any]]
    readings: Mapping[str, Reading]

    def __call__(self, examples: Sequence[tuple[int, Example]]) -> dict[str, Any]:
        """Return the arguments of the objective."""
        rows, first = [row for row, _ in examples], examples[0][1]
        reading = self.readings[first.name]
        columns = list(zip(*(example.texts for _, example in examples), strict=True))
        batch: dict[str, Any] = {"features": self._features(columns, reading), "rows": rows}
        if first.name:
            batch["dataset_name"] = first.name
        if reading.known is not None:
            batch["label"] = reading.known.mask([example.ids for _, example in examples])
        if first.label is not None:
            batch["label"] = _labels([example.label for _, example in examples], reading.label)
        return batch

    def _features(self, columns: Sequence[tuple[Any, ...]], reading: Reading) -> list[Any]:
        parts = zip(columns, reading.prompts, reading.tasks, strict=True)
        return [self.preprocess(list(texts), prompt=prompt, task=task) for texts, prompt, task in parts]


@dataclass(frozen=True, slots=True)
class PairCollator(Collator):
    """Makes batches for losses that tokenize pairs of texts themselves."""

    def __call__(self, examples: Sequence[tuple[int, Example]]) -> dict[str, Any]:
        """Return the arguments of the objective, with the prompt and the route of the pairs."""
        batch = Collator.__call__(self, examples)  # super() needs the class before slots
        reading = self.readings[examples[0][1].name]
        options = {"prompt": reading.prompts[0], "task": reading.tasks[0]}
        used = {name: value for name, value in options.items() if value is not None}
        return batch | ({"options": used} if used else {})

    def _features(self, columns: Sequence[tuple[Any, ...]], reading: Reading) -> list[Any]:  # noqa: ARG002
        return [list(texts) for texts in columns]


def _labels(labels: Sequence[Any], form: Label) -> Tensor | list[Tensor]:
    """Return labels as one tensor, or as one tensor for each row where rows may have different numbers."""
    values = [torch.as_tensor(each) for each in labels]
    if form is Label.LIST:
        return [each.float() for each in values]
    return torch.tensor(list(labels)) if not any(each.ndim for each in values) else torch.stack(values)
