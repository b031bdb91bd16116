"""What callers and evaluators record about a loaded model, and what it was trained or made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_core.home import expand_home

if TYPE_CHECKING:
    from st_core.checkpoint.read import Checkpoint

__all__ = [
    "CrossEncoderModelCardData",
    "Evaluation",
    "ModelCardData",
    "Origin",
    "SentenceTransformerModelCardData",
    "SparseEncoderModelCardData",
    "origin_of",
]

METADATA = ("language", "license", "license_name", "license_link", "pipeline_tag")
"""Keys of a card's metadata that stay true of a model that is trained further."""


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
    ``language``, ``license``, ``tags`` and ``model_name``. A trained model gets a new card with these and
    ``base_model``. Other metadata is not written.
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


@dataclass(frozen=True, slots=True)
class Origin:
    """The model that another one was trained or made from: its name, and metadata of its card.

    The name is that on the Hub, with a slash, that of a built-in model, or that of a folder without its path.
    """

    name: str
    metadata: Mapping[str, Any]


def origin_of(checkpoint: Checkpoint) -> Origin:
    """Return the name and the metadata of a checkpoint."""
    name = checkpoint.name
    if checkpoint.folder == Path(expand_home(name)):
        parts = checkpoint.folder.resolve().parts
        is_cached = len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--")
        name = parts[-3].removeprefix("models--").replace("--", "/") if is_cached else parts[-1]
    return Origin(name, _metadata(checkpoint.folder / "README.md"))


def _metadata(card: Path) -> dict[str, Any]:
    """Return the texts and lists of texts in the metadata of a card; nothing if it cannot be read."""
    if not card.is_file():
        return {}
    try:
        from huggingface_hub import metadata_load

        found = metadata_load(card) or {}
    except Exception:  # noqa: BLE001 - anyone may have written it, and no card ends a training
        return {}
    values = {name: found[name] for name in METADATA if name in found}
    return {name: value for name, value in values.items() if _is_text(value)}


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))
