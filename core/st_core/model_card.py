"""What callers and evaluators record about a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Evaluation", "ModelCardData"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of one run of an evaluator, by name."""

    evaluator: str
    metrics: Mapping[str, float]
    epoch: int = 0
    step: int = 0


@dataclass
class ModelCardData:
    """Metadata of a model, in memory. Any other attribute can be set too.

    Nothing of it is written: ``save_pretrained`` copies the model card of the checkpoint.
    """

    language: str | list[str] | None = None
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    base_model: str | None = None
    tags: list[str] = field(default_factory=list)
    generate_widget_examples: bool = False
    evaluations: list[Evaluation] = field(default_factory=list)
    """The results that evaluators recorded, in their order."""

    def set_evaluation_metrics(
        self, evaluator: object, metrics: Mapping[str, float], epoch: int = 0, step: int = 0
    ) -> None:
        """Record the metrics of an evaluator, as the evaluators of sentence-transformers do after each run."""
        name = getattr(evaluator, "name", "") or type(evaluator).__name__
        self.evaluations.append(Evaluation(str(name), dict(metrics), epoch, step))
