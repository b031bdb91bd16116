"""Callbacks of the trainers, with the names of sentence-transformers 6.2."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from transformers import TrainerCallback

from st_core.training.losses.sparse import SpladeLoss

__all__ = ["SchedulerType", "SpladeRegularizerWeightSchedulerCallback"]


class SchedulerType(StrEnum):
    """How the weights of regularizers rise."""

    LINEAR = "linear"
    QUADRATIC = "quadratic"


class SpladeRegularizerWeightSchedulerCallback(TrainerCallback):  # type: ignore[misc]  # the library is not checked
    """Lets the weights of the regularizers rise from zero to those of the loss over a share of the steps.

    A weight that is steered towards a number of active terms does not rise. A resumed training continues with the
    weight of its step. Raises ValueError for another loss, an unknown schedule and a share that is not from 0 to 1.
    """

    def __init__(
        self,
        loss: SpladeLoss,
        scheduler_type: str | SchedulerType = SchedulerType.QUADRATIC,
        warmup_ratio: float = 1 / 3,
    ) -> None:
        """Store the final weights."""
        if not isinstance(loss, SpladeLoss):
            raise ValueError(f"the weights to raise are those of SpladeLoss, got {type(loss).__name__}")  # noqa: TRY004
        if not 0 < warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio must be above 0 and at most 1, got {warmup_ratio}")
        self.loss = loss
        self.scheduler_type = SchedulerType(scheduler_type)
        self.warmup_ratio = warmup_ratio
        self._document = loss.document_regularizer_weight
        self._query = loss.query_regularizer_weight
        self._steps = 1

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Compute the number of steps over which the weights rise."""
        self._steps = max(1, int(state.max_steps * self.warmup_ratio))
        self._set(state.global_step)

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Set the weights of a step."""
        self._set(state.global_step)

    def on_log(
        self, _args: Any, _state: Any, _control: Any, logs: dict[str, float] | None = None, **_kwargs: Any
    ) -> None:
        """Add the weights to a line of the log."""
        if logs is not None:
            steered = self.loss.steered.tolist()
            logs["document_regularizer_weight"] = self.loss.document_regularizer_weight * steered[0]
            if self.loss.query_regularizer_weight is not None:
                logs["query_regularizer_weight"] = self.loss.query_regularizer_weight * steered[1]

    def _set(self, step: int) -> None:
        share = min(1.0, step / self._steps)
        factor = share if self.scheduler_type is SchedulerType.LINEAR else share**2
        if self.loss.document_terms is None:
            self.loss.document_regularizer_weight = self._document * factor
        if self._query is not None and self.loss.query_terms is None:
            self.loss.query_regularizer_weight = self._query * factor
