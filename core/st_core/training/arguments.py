"""The arguments of the trainers: those of ``transformers.TrainingArguments`` and those of sentence-transformers 6.2."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from st_core.errors import missing_extra
from st_core.training.samplers import BatchSamplers, MultiDatasetBatchSamplers

try:
    import_module("accelerate")  # the library asks for it when it is too late for a clear message
    from transformers import TrainingArguments as LibraryArguments
    from transformers.training_args import ParallelMode
except ImportError as error:
    raise missing_extra("train", "a training") from error

__all__ = [
    "CrossEncoderTrainingArguments",
    "SentenceTransformerTrainingArguments",
    "SparseEncoderTrainingArguments",
    "TrainingArguments",
]

logger = logging.getLogger(__name__)


@dataclass
class TrainingArguments(LibraryArguments):  # type: ignore[misc]  # the library is not checked
    """Arguments of a training.

    ``prompts`` are put in front of texts: one for all columns, by column, by data set, or by data set and column. By
    default the prompts of the model are used, those for queries in the first column of a loss for retrieval. The
    prompts that were used are saved with the model. ``batch_sampler`` and ``multi_dataset_batch_sampler`` decide which
    rows form a batch. ``router_mapping`` names the route of each column, by column or by data set and column.
    ``learning_rate_mapping`` contains learning rates for parameters, by regular expressions that match their names.

    ``columns`` are the text columns in the order that the loss reads them, or such lists by data set; by default they
    are matched by name or order. ``ignored_columns`` are columns of the data that are not read. ``label_range``, the
    lowest and the highest label, replaces the range that the loss expects. ``id_columns`` are the columns of the ids of
    texts, by text column: documents that are positives of a query in another row, or relevant for it by ``judgements``
    (documents or grades by query, or a file of them), are then no negatives of it.
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012 - the library's list, in its form
        *LibraryArguments._VALID_DICT_FIELDS,  # noqa: SLF001 - the documented way to add such fields
        *("prompts", "router_mapping", "learning_rate_mapping", "columns", "ignored_columns", "id_columns"),
    ]

    prompts: str | dict[str, Any] | None = None
    batch_sampler: Any = BatchSamplers.BATCH_SAMPLER
    multi_dataset_batch_sampler: Any = MultiDatasetBatchSamplers.PROPORTIONAL
    router_mapping: str | dict[str, Any] | None = field(default_factory=dict)
    learning_rate_mapping: str | dict[str, Any] | None = field(default_factory=dict)
    columns: Any = None
    ignored_columns: Any = None
    id_columns: Any = None
    judgements: Any = None
    label_range: Any = None
    warmup_ratio: float | None = None

    def __post_init__(self) -> None:
        """Convert the arguments; raise ValueError for unknown samplers and for text that is not JSON."""
        library: Any = self  # its fields are not checked
        if self.warmup_ratio is not None and library.warmup_steps == 0:
            library.warmup_steps, self.warmup_ratio = self.warmup_ratio, None
        self.chooses_by_default = self.metric_for_best_model is None
        super().__post_init__()
        if isinstance(self.batch_sampler, str):
            self.batch_sampler = BatchSamplers(self.batch_sampler)
        if isinstance(self.multi_dataset_batch_sampler, str):
            self.multi_dataset_batch_sampler = MultiDatasetBatchSamplers(self.multi_dataset_batch_sampler)
        if isinstance(self.prompts, str) and self.prompts.startswith("{"):
            self.prompts = _mapping(self.prompts, "prompts")
        self.router_mapping = _mapping(self.router_mapping, "router_mapping")
        self.learning_rate_mapping = _mapping(self.learning_rate_mapping, "learning_rate_mapping")
        self.id_columns = _mapping(self.id_columns, "id_columns")
        self.prediction_loss_only = True
        self.ddp_broadcast_buffers = False
        if self.parallel_mode == ParallelMode.DISTRIBUTED and not library.dataloader_drop_last:
            logger.info("dataloader_drop_last is set, so that all devices have the same number of batches")
            library.dataloader_drop_last = True

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON values, without judgements and without samplers of the user."""
        values: dict[str, Any] = super().to_dict()
        return {
            name: value
            for name, value in values.items()
            if name != "judgements" and not (name.endswith("batch_sampler") and callable(value))
        }


def _mapping(value: object, argument: str) -> dict[str, Any]:
    """Return a mapping, also from its JSON text; raise ValueError for another value."""
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{argument} must be a mapping or its JSON text: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{argument} must be a mapping, got {value!r}")  # noqa: TRY004
    return value


@dataclass
class SentenceTransformerTrainingArguments(TrainingArguments):
    """Arguments of the training of a dense model."""


@dataclass
class SparseEncoderTrainingArguments(TrainingArguments):
    """Arguments of the training of a sparse model."""


@dataclass
class CrossEncoderTrainingArguments(TrainingArguments):
    """Arguments of the training of a cross-encoder."""
