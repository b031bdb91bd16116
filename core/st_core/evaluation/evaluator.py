"""The base of evaluators: names of metrics, the table of results, and several evaluators as one."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Evaluator", "SequentialEvaluator", "append_row"]


class Evaluator(ABC):
    """Computes metrics of a model; ``primary_metric`` is the name of the one to maximise.

    The names of metrics begin with the name of the evaluator if it has one. With ``write_csv`` every call with an
    output folder appends a line to a table there.
    """

    csv_file: str

    def __init__(self, name: str, *, write_csv: bool) -> None:
        """Store the arguments."""
        self.name = name
        self.write_csv = write_csv
        self.primary_metric: str | None = None

    def __call__(
        self, model: Any, output_path: str | PathLike[str] | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics of a model, after recording them with the model."""
        plain = {name: float(value) for name, value in self.compute(model).items()}
        self.primary_metric = self._named(self.primary_of(plain, model))
        if output_path is not None and self.write_csv:
            append_row(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **self.columns(plain)})
        metrics = {self._named(name): value for name, value in plain.items()}
        self.record(model, metrics, epoch, steps)
        return metrics

    def record(self, model: Any, metrics: Mapping[str, float], epoch: float, steps: int) -> None:
        """Record metrics in the data of the model's card, if it has any."""
        record = getattr(getattr(model, "model_card_data", None), "set_evaluation_metrics", None)
        if record is not None:
            record(self, metrics, epoch, steps)

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return metrics

    @abstractmethod
    def compute(self, model: Any) -> Mapping[str, float]:
        """Return the metrics of a model without the name of the evaluator."""

    @abstractmethod
    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:
        """Return which of the metrics is the primary one."""

    def expected_primary(self, model: Any) -> str | None:
        """Return the name of the primary metric before a run, None if a run decides it."""
        return self._named(self.primary_of({}, model))

    def _named(self, metric: str) -> str:
        return f"{self.name}_{metric}" if self.name else metric


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Append a line to a table, which is created with a head where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(row)
        writer.writerow(row.values())


class SequentialEvaluator:
    """Runs several evaluators; the primary metric, ``sequential_score``, is that of the last one.

    ``main_score_function`` computes it from the primary metrics of all. Metrics of equal names raise ValueError.
    """

    def __init__(
        self,
        evaluators: Iterable[Any],
        main_score_function: Callable[[Sequence[float]], float] = lambda scores: scores[-1],
    ) -> None:
        """Store the evaluators; raise ValueError if there is none."""
        self.evaluators = list(evaluators)
        if not self.evaluators:
            raise ValueError("SequentialEvaluator needs at least one evaluator")
        self.main_score_function = main_score_function
        self.primary_metric = "sequential_score"

    def __call__(
        self, model: Any, output_path: str | PathLike[str] | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics of all evaluators."""
        metrics: dict[str, float] = {}
        scores = []
        for evaluator in self.evaluators:
            found = evaluator(model, output_path=output_path, epoch=epoch, steps=steps)
            same = metrics.keys() & found.keys()
            if same:
                raise ValueError(f"two evaluators give {min(same)!r}; pass name=… to one of them")
            metrics |= found
            scores.append(found[getattr(evaluator, "primary_metric", None) or next(iter(found))])
        return metrics | {"sequential_score": float(self.main_score_function(scores))}
