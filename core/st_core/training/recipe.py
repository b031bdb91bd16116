"""A training in a few words: kind, base model, data and what deviates from the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from st_core.errors import missing_extra
from st_core.rows import LABELS, rows_of_files
from st_core.training.choosing import Choice, Kind, choose_loss

__all__ = ["Recipe", "choice_of", "trainer_of"]

_CLASSES: Mapping[Kind, str] = {"dense": "SentenceTransformer", "sparse": "SparseEncoder", "reranker": "CrossEncoder"}
_LOSSES: Mapping[Kind, str] = {"dense": "dense", "sparse": "sparse", "reranker": "reranking"}

LOG_LINES = 50
"""Lines of the log, at most."""

COUNTED_ROWS = 50_000
"""Rows whose documents are counted for the first weights of inference-free queries, at most."""

QUERY_RATE = 1e-3
"""Learning rate of the weights of inference-free queries; that of a transformer would hardly change them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a training is made of.

    ``data`` and ``evaluation`` are files of rows. Without a ``loss`` the columns choose it. ``document_terms`` and
    ``query_terms`` are the active terms that a sparse model is steered to. ``lora`` is the rank of an adapter of all
    linear layers that is trained in place of the weights, scaled by ``lora_alpha`` over the rank, by default 2. With
    ``inference_free`` the queries of a sparse model become tokens with learned weights, which start as the rarity of
    the tokens in the documents of the data.
    ``arguments`` are further arguments of the trainer.
    """

    kind: Kind
    base: str
    data: Sequence[str]
    folder: Path
    evaluation: Sequence[str] = ()
    loss: str | None = None
    document_terms: int = 200
    query_terms: int | None = 40
    epochs: float = 1.0
    batch: int = 32
    learning_rate: float = 2e-5
    warmup: float = 0.1
    max_steps: int = -1
    seed: int = 42
    evaluations: int = 10
    lora: int | None = None
    lora_alpha: int | None = None
    inference_free: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"


def choice_of(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> Choice:
    """Return the loss of a recipe and why it is used; raise ValueError for columns that no loss fits."""
    if recipe.loss is not None:
        return Choice(recipe.loss, "it was requested")
    return choose_loss(recipe.kind, _columns(recipe, rows), rows[0])


def _columns(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of texts in the order of the loss, and those of labels."""
    ignored = {*(recipe.arguments.get("ignored_columns") or ()), *(recipe.arguments.get("id_columns") or {}).values()}
    columns = [name for name in rows[0] if name not in ignored]
    chosen = recipe.arguments.get("columns")
    return [*chosen, *(name for name in columns if name in LABELS)] if chosen else columns


def trainer_of(recipe: Recipe, callbacks: Sequence[Any] = ()) -> tuple[Any, Choice]:
    """Return the trainer of a recipe, after checking its data, and the choice of its loss.

    Raises ImportError without the extra ``train``, OSError and ValueError for data that cannot be read, the errors of
    loading the base model, and ValueError for an unknown loss.
    """
    rows = rows_of_files(list(recipe.data))
    choice = choice_of(recipe, rows)
    trainers, arguments = import_module("st_core.training.trainer"), import_module("st_core.training.arguments")
    name = _CLASSES[recipe.kind]
    import_module("transformers").set_seed(recipe.seed)  # a new head and a new adapter are drawn
    model = _base(recipe, choice)
    routes: dict[str, Any] = {}
    if recipe.inference_free:
        model, routes = _inference_free(recipe, model, rows)
    if choice.loss == "CrossEntropyLoss" and model.num_labels == 1:
        raise ValueError(
            f"{recipe.base} has one label, and CrossEntropyLoss needs one for each class; choose another loss"
        )
    if recipe.lora is not None:
        _add_lora(model, recipe.lora, recipe.lora_alpha)
    steps = _steps(recipe, len(rows))
    args = getattr(arguments, f"{name}TrainingArguments")(
        output_dir=str(recipe.checkpoints),
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps,
        per_device_train_batch_size=recipe.batch,
        per_device_eval_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        seed=recipe.seed,
        logging_steps=max(1, steps // LOG_LINES),
        save_steps=max(1, steps // recipe.evaluations),
        save_total_limit=2,
        **(_evaluation(recipe, steps) if recipe.evaluation else {}),
        **({"batch_sampler": "no_duplicates"} if "NegativesRanking" in choice.loss else {}),
        disable_tqdm=True,
        **{**recipe.arguments, **routes},
    )
    trainer = getattr(trainers, f"{name}Trainer")(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=rows_of_files(list(recipe.evaluation)) if recipe.evaluation else None,
        loss=_loss(recipe, choice.loss, model),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(import_module("transformers").PrinterCallback)  # prints to standard output
    return trainer, choice


def _base(recipe: Recipe, choice: Choice) -> Any:
    """Return the base model, with a new head where its kind needs one that it lacks."""
    library: Any = import_module("st_core")
    model_class = getattr(library, _CLASSES[recipe.kind])
    if recipe.kind == "dense":
        return model_class(recipe.base)
    try:
        return model_class(recipe.base)
    except library.ModelUnsupported as error:
        if "init_head=True" not in str(error):
            raise
    needs_one = recipe.kind == "reranker" and choice.loss != "CrossEntropyLoss"
    return model_class(recipe.base, num_labels=1) if needs_one else model_class(recipe.base, init_head=True)


def _inference_free(recipe: Recipe, documents: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, dict[str, Any]]:
    """Return a model whose documents are encoded by the base, and the arguments that send columns to its routes."""
    query, *columns = _columns(recipe, rows)
    columns = [name for name in columns if name not in LABELS]
    texts = dict.fromkeys(str(row[name]) for row in islice(rows, COUNTED_ROWS) for name in columns)
    model = import_module("st_core.distilling").inference_free_model(documents, list(texts))
    routes = {query: "query", **dict.fromkeys(columns, "document"), **recipe.arguments.get("router_mapping", {})}
    return model, {"router_mapping": routes, "learning_rate_mapping": {r"\.routes\.query\.": QUERY_RATE}}


def _add_lora(model: Any, rank: int, alpha: int | None) -> None:
    """Add an adapter of all linear layers to a model; raise ImportError without the extra ``peft``."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise missing_extra("peft", "--lora") from error
    model.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank if alpha is None else alpha, target_modules="all-linear"))


def _loss(recipe: Recipe, name: str, model: Any) -> Any:
    """Return the loss of a name; that of a sparse model is within SpladeLoss."""
    losses = import_module(f"st_core.training.losses.{_LOSSES[recipe.kind]}")
    full = f"Sparse{name}" if recipe.kind == "sparse" and not name.startswith("Sparse") else name
    if full not in losses.__all__:
        known = ", ".join(each for each in losses.__all__ if each.endswith("Loss"))
        raise ValueError(f"unknown loss {name!r} of a {recipe.kind} model; expected one of {known}")
    loss = getattr(losses, full)(model)
    if recipe.kind != "sparse":
        return loss
    terms = {"document_terms": recipe.document_terms, "query_terms": recipe.query_terms}
    return losses.SpladeLoss(model, loss, **terms)


def _steps(recipe: Recipe, rows: int) -> int:
    if recipe.max_steps > 0:
        return recipe.max_steps
    return max(1, int(-(-rows // recipe.batch) * recipe.epochs))


def _evaluation(recipe: Recipe, steps: int) -> dict[str, Any]:
    return {
        "eval_strategy": "steps",
        "eval_steps": max(1, steps // recipe.evaluations),
        "load_best_model_at_end": True,
    }
