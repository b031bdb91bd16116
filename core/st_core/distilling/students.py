"""Train students towards their teachers: by vectors, or by scores of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from torch import nn
from transformers import PrinterCallback

from st_core.cross_encoder import CrossEncoder
from st_core.errors import TrainingInterrupted
from st_core.evaluation.pairs import correlation, ranks
from st_core.mining.scoring import documents_of, pair_scores
from st_core.model import Model
from st_core.rows import LABELS
from st_core.sentence_transformer import SentenceTransformer
from st_core.training.callbacks import StopCallback
from st_core.training.curves import write_log
from st_core.training.losses import dense, reranking

__all__ = ["Training", "document_prompt", "rank_correlation", "train", "train_on_scores", "train_on_vectors"]

LOG_LINES = 50
"""Lines of the log, at most."""

CHECKPOINTS = 10
"""A training writes about this many checkpoints, at most twice as many; the last two stay."""


@dataclass(frozen=True, slots=True)
class Training:
    """How long and how a student is trained.

    ``callbacks`` are passed to the trainer. ``folder`` gets the checkpoints, the log and its curves; without one, none
    are written. With ``resume`` the training continues from the last checkpoint of an equal training. ``stop`` lets
    Ctrl-C end the training after the current step, in the main thread; it needs a folder. Raises ValueError without.
    """

    epochs: float = 1.0
    batch: int = 32
    learning_rate: float = 5e-5
    warmup: float = 0.1
    seed: int = 42
    callbacks: tuple[Any, ...] = ()
    folder: Path | None = None
    resume: bool = False
    stop: StopCallback | None = None

    def __post_init__(self) -> None:
        if self.folder is None and (self.resume or self.stop is not None):
            raise ValueError("a training that is stopped and resumed needs a folder for its checkpoints")


def train(model: Model, rows: Sequence[Mapping[str, Any]], loss: nn.Module, training: Training, **more: Any) -> None:
    """Train a model with a loss on rows; ``more`` are further arguments of its trainer.

    Nothing is trained for no epochs. Raises the errors of the trainer for rows that the loss cannot read, and
    TrainingInterrupted if ``training.stop`` ended it.
    """
    if training.epochs <= 0:
        return
    trainers, arguments = import_module("st_core.training.trainer"), import_module("st_core.training.arguments")
    steps = -(-len(rows) // training.batch) * training.epochs
    callbacks = [] if training.stop is None else [training.stop]
    with ExitStack() as stack:
        saving: dict[str, Any]
        if training.folder is None:
            folder, saving = stack.enter_context(TemporaryDirectory()), {"save_strategy": "no"}
        else:
            folder = str(training.folder / "checkpoints")
            saving = {"save_steps": max(1, int(steps // CHECKPOINTS)), "save_total_limit": 2}
        args = getattr(arguments, f"{model.family}TrainingArguments")(
            output_dir=folder,
            num_train_epochs=training.epochs,
            per_device_train_batch_size=training.batch,
            learning_rate=training.learning_rate,
            warmup_steps=training.warmup,
            seed=training.seed,
            logging_steps=max(1, math.ceil(steps / LOG_LINES)),
            disable_tqdm=True,
            **saving,
            **more,
        )
        trainer = getattr(trainers, f"{model.family}Trainer")(
            model=model, args=args, train_dataset=rows, loss=loss, callbacks=[*callbacks, *training.callbacks]
        )
        trainer.remove_callback(PrinterCallback)  # prints to standard output
        if training.stop is not None:
            stack.enter_context(training.stop.watching())
        trainer.train(resume_from_checkpoint=training.resume or None)
    if training.folder is not None:
        write_log(training.folder, trainer.state.log_history)
    if training.stop is not None and training.stop.is_stopped:
        raise TrainingInterrupted(trainer.state.global_step)


def document_prompt(model: SentenceTransformer) -> str:
    """Return the prompt of a model for documents, "" without one."""
    name = model._document_prompt(None, None)  # noqa: SLF001 - of this package
    return "" if name is None else model.prompts[name]


def train_on_vectors(
    student: SentenceTransformer, teacher: SentenceTransformer, texts: Sequence[str], training: Training
) -> None:
    """Train a student on the teacher's vectors of texts, which have its width, with the prompt for documents.

    The loss is one minus the cosine, for a teacher of another similarity the squared error.
    """
    prompt = document_prompt(teacher)
    vectors = teacher.encode(list(texts), prompt=prompt)
    metric: Literal["cosine", "mse"] = "cosine" if teacher.similarity_fn_name == "cosine" else "mse"
    rows = [{"text": text, "label": vector} for text, vector in zip(texts, vectors, strict=True)]
    train(student, rows, dense.EmbedDistillLoss(student, metric), training, prompts=prompt)


def train_on_scores(student: CrossEncoder, rows: Sequence[Mapping[str, Any]], training: Training) -> str:
    """Train a cross-encoder on the scores of a teacher, and return the name of the loss.

    Rows have a query, one document and ``score``, or several documents in columns of their own and ``scores``, as
    ``scored_rows`` yields them. Several documents train with their margins, a single one with its score.
    """
    texts = [name for name in rows[0] if name not in LABELS]
    loss = reranking.MSELoss(student) if len(texts) == 2 else reranking.MarginMSELoss(student)
    train(student, rows, loss, training)
    return type(loss).__name__


def rank_correlation(model: Any, rows: Sequence[Mapping[str, Any]]) -> float:
    """Return Spearman's correlation of a model's scores with those of rows.

    For rows with several documents, the mean of each row is first subtracted from both. The result is NaN where all
    scores are equal. Raises ValueError for a row without a score for each document.
    """
    pairs: list[tuple[str, str]] = []
    wanted: list[float] = []
    counts: list[int] = []
    for row in rows:
        query, *documents = (name for name in row if name not in LABELS)
        listed = documents_of(row, documents)
        labels = np.atleast_1d(np.asarray(next(row[name] for name in LABELS if name in row), np.float64))
        if labels.size != len(listed):
            raise ValueError(
                f"a row has {labels.size} scores for {len(listed)} documents; pass rows that st-connectors score has "
                "written"
            )
        wanted.extend(labels.tolist())
        counts.append(len(listed))
        pairs.extend((row[query], document) for document in listed)
    found = pair_scores(model, pairs)
    if max(counts) > 1:
        found, scores = (_from_mean(each, counts) for each in (found, np.array(wanted)))
    else:
        scores = np.array(wanted)
    return correlation(ranks(found), ranks(scores))


def _from_mean(scores: Any, counts: Sequence[int]) -> Any:
    """Return scores minus the mean of their row."""
    parts = np.split(scores, np.cumsum(counts)[:-1])
    return np.concatenate([part - part.mean() for part in parts])
