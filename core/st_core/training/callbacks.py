"""Callbacks of the trainers: the schedule of sentence-transformers 6.2, and what a command shows and stops."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from transformers import TrainerCallback

from st_core.training.devices import in_any_process
from st_core.training.losses.sparse import SpladeLoss

__all__ = ["LogCallback", "SchedulerType", "SpladeRegularizerWeightSchedulerCallback", "StopCallback"]


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


class StopCallback(TrainerCallback):  # type: ignore[misc]  # the library is not checked
    """Stops a training after its current step, with a checkpoint, when one of its processes is interrupted (Ctrl-C).

    The second interruption ends it at once, without a checkpoint.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        """Store what is called at the first interruption."""
        self._told = told
        self.is_stopped = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take interruptions inside the block; it must run in the main thread."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: object) -> None:
        if self.is_stopped:
            raise KeyboardInterrupt
        self.is_stopped = True
        self._told()

    def on_step_end(self, args: Any, _state: Any, control: Any, **_kwargs: Any) -> None:
        """Save and stop if there was an interruption."""
        if in_any_process(self.is_stopped, args.device):
            self.is_stopped = True
            control.should_save = control.should_training_stop = True


class LogCallback(TrainerCallback):  # type: ignore[misc]  # the library is not checked
    """Calls a function with the step, the number of steps and the values of each line of the log."""

    def __init__(self, show: Callable[[int, int, Mapping[str, Any]], None]) -> None:
        """Store the function."""
        self._show = show

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: Mapping[str, Any] | None = None, **_kwargs: Any
    ) -> None:
        """Pass a line on."""
        if state.is_world_process_zero and logs:
            self._show(state.global_step, state.max_steps, logs)
