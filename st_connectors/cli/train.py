"""``st-connectors train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import FAILURE, print_error, print_json, print_line
from st_connectors.cli.training import check_checkpoints, show_curves, show_log, stopped_after, store_options
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_core.training.recipe import Recipe

__all__ = ["train"]


class Kind(StrEnum):
    """Kinds of models."""

    DENSE = "dense"
    SPARSE = "sparse"
    RERANKER = "reranker"


def train(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="dense, sparse or reranker.")],
    data: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="Files of rows: JSON Lines, CSV, TSV or Parquet.")
    ],
    *,
    base: Annotated[str, typer.Option(metavar="MODEL", help="The model to start from: a folder or a Hub name.")],
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Folder of the trained model.")],
    evaluation: Annotated[
        list[str] | None,
        typer.Option("--eval", metavar="FILE", help="Rows of an evaluation; the best model is saved. Repeat for more."),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="NAME", help="The loss (default: what the columns call for).")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Text columns in the order of the loss.")
    ] = None,
    ignore: Annotated[str | None, typer.Option(metavar="NAME,...", help="Columns that are not read.")] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            metavar="COLUMN=ID-COLUMN,...",
            help="Columns of ids, by which documents that are positives of a query are no negatives of it.",
        ),
    ] = None,
    qrels: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --ids: judgements of further positives.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="JSON", help='Prompts by column, such as \'{"query": "query: "}\'.')
    ] = None,
    routes: Annotated[
        str | None, typer.Option(metavar="COLUMN=ROUTE,...", help="Routes of a model with a router, by column.")
    ] = None,
    document_terms: Annotated[int, typer.Option(min=1, help="Sparse: active terms of documents.")] = 200,
    query_terms: Annotated[
        int, typer.Option(min=0, help="Sparse: active terms of queries; 0 for queries that are not trained.")
    ] = 40,
    inference_free: Annotated[
        bool,
        typer.Option("--inference-free", help="Sparse: queries are weighted tokens, without a transformer."),
    ] = False,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the data.")] = 1.0,
    max_steps: Annotated[int, typer.Option(help="Steps, in place of --epochs.")] = -1,
    batch: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="The highest learning rate.")] = 2e-5,
    warmup: Annotated[float, typer.Option(min=0, help="Share of the steps in which it rises.")] = 0.1,
    lora: Annotated[
        int | None, typer.Option(min=1, metavar="RANK", help="Train an adapter of this rank, not the weights.")
    ] = None,
    lora_alpha: Annotated[
        int | None, typer.Option(min=1, help="With --lora: scale of the adapter, over its rank (default: 2 x RANK).")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="With --lora: save the weights with the adapter.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of data and dropout.")] = 42,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in the folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a dense model, a sparse model or a reranker.

    The loss follows from the columns, and is printed before the start with what is read of them: query and answer train
    with negatives of the batch, a score orders pairs, scores of a teacher are margins. A base model without the head
    that its kind needs gets a new one. The folder has the model, curves.svg, log.jsonl and checkpoints. Ctrl-C stops
    after the current step, with a checkpoint and the command that resumes.

    Example: st-connectors train dense pairs.jsonl --base sentence-transformers/all-MiniLM-L6-v2 --out my-model

    Example: st-connectors train reranker negatives.jsonl --base my-model --out my-reranker --eval held-out.jsonl

    Example: st-connectors train sparse negatives.jsonl --base distilbert-base-uncased --inference-free --out my-sparse

    Example: st-connectors train dense pairs.jsonl --base my-model --lora 16 --learning-rate 2e-4 --out my-adapter
    """
    from st_core.training.recipe import Recipe

    arguments: dict[str, Any] = {
        "columns": _listed(columns),
        "ignored_columns": _listed(ignore),
        "id_columns": _pairs("--ids", ids),
        "judgements": qrels,
        "router_mapping": _pairs("--routes", routes),
    }
    arguments = {name: value for name, value in arguments.items() if value}
    if prompts is not None:
        arguments["prompts"] = prompts
    recipe = Recipe(
        kind.value,
        base,
        data,
        Path(expand_home(out)),
        evaluation or (),
        loss,
        document_terms,
        None if inference_free else query_terms or None,
        epochs,
        batch,
        learning_rate,
        warmup,
        max_steps,
        seed,
        lora=lora,
        lora_alpha=lora_alpha,
        inference_free=inference_free,
        arguments=arguments,
    )
    source = context.get_parameter_source("query_terms")
    if inference_free and source is not None and source.name != "DEFAULT":
        raise ValueError("--query-terms is for queries that a transformer encodes; leave it out with --inference-free")
    if inference_free and kind is not Kind.SPARSE:
        raise ValueError(f"--inference-free is for sparse models, not for {kind.value}")
    if lora is None and (merge or lora_alpha is not None):
        raise ValueError(f"{'--merge' if merge else '--lora-alpha'} is for adapters; pass --lora RANK too")
    check_checkpoints(recipe.checkpoints, _options_of(recipe), resume=resume)
    _run(recipe, resume=resume, merge=merge, as_json=as_json)


def _options_of(recipe: Recipe) -> dict[str, Any]:
    """Return the options that the trainer does not compare with those of a checkpoint."""
    return {"kind": recipe.kind, "base": recipe.base}


def _run(recipe: Recipe, *, resume: bool, merge: bool, as_json: bool) -> None:
    from st_core.training.callbacks import LogCallback, StopCallback
    from st_core.training.curves import curves_of, write_log
    from st_core.training.reading import described
    from st_core.training.recipe import trainer_of

    stop = StopCallback(lambda: print_error("stopping after this step; press Ctrl-C again to end at once"))
    trainer, choice = trainer_of(recipe, [stop, LogCallback(show_log)])
    print_error(f"loss {choice.loss}: {choice.reason}")
    print_error(described(trainer.train_sets))
    store_options(recipe.checkpoints, _options_of(recipe))
    try:
        with stop.watching():
            output = trainer.train(resume_from_checkpoint=resume or None)
    except (FloatingPointError, RuntimeError) as error:
        print_error(f"st-connectors: {error}")
        raise typer.Exit(FAILURE) from error
    history = trainer.state.log_history
    write_log(recipe.folder, history)
    if stop.is_stopped:
        raise stopped_after(trainer.state.global_step)
    if merge:
        trainer.trained.merge_adapter()
    trainer.trained.save_pretrained(str(recipe.folder))
    if as_json:
        last = {name: curve[-1][1] for name, curve in curves_of(history).items()}
        print_json(
            {
                "folder": str(recipe.folder),
                "loss": choice.loss,
                "steps": output.global_step,
                "seconds": output.metrics["train_runtime"],
                "metrics": last,
            }
        )
        return
    show_curves(history)
    print_line(f"{recipe.folder}: trained for {output.global_step} steps in {output.metrics['train_runtime']:.0f} s")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _pairs(option: str, text: str | None) -> dict[str, str]:
    """Parse ``NAME=VALUE,…``; raise ValueError for another form."""
    pairs: dict[str, str] = {}
    for part in _listed(text) or ():
        name, sign, value = part.partition("=")
        if not (name and sign and value):
            raise ValueError(f"{option} {text!r}: expected NAME=VALUE, separated by commas")
        pairs[name] = value
    return pairs
