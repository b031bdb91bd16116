"""What callers and evaluators record about a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "CrossEncoderModelCardData",
    "Evaluation",
    "ModelCardData",
    "SentenceTransformerModelCardData",
    "SparseEncoderModelCardData",
]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of one run of an evaluator, by name."""

    evaluator: str
    metrics: Mapping[str, float]
    epoch: int = 0
    step: int = 0


@dataclass
class ModelCardData:
    """Metadata of a model, in memory, with the arguments of sentence-transformers. Other attributes can be set too.

    ``save_pretrained`` copies the model card of the checkpoint. For a checkpoint without one it writes a card with
    ``language``, ``license``, ``tags`` and ``model_name``. Other metadata is not written.
    """

    language: str | list[str] | None = None
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    train_datasets: list[dict[str, str]] = field(default_factory=list)
    eval_datasets: list[dict[str, str]] = field(default_factory=list)
    task_name: str | None = None
    tags: list[str] = field(default_factory=list)
    local_files_only: bool = False
    generate_widget_examples: bool = False
    base_model: str | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    """The results that evaluators recorded, in their order."""

    def set_evaluation_metrics(
        self, evaluator: object, metrics: Mapping[str, float], epoch: int = 0, step: int = 0
    ) -> None:
        """Record the metrics of an evaluator, as the evaluators of sentence-transformers do after each run."""
        name = getattr(evaluator, "name", "") or type(evaluator).__name__
        self.evaluations.append(Evaluation(str(name), dict(metrics), epoch, step))


SentenceTransformerModelCardData = CrossEncoderModelCardData = SparseEncoderModelCardData = ModelCardData
"""The names of sentence-transformers, which has a class for each family."""
