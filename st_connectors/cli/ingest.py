"""``st-connectors ingest``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli import ingest_options as shared
from st_connectors.cli.ingesting import (
    AGAIN,
    Task,
    TaskTarget,
    Writing,
    check_options,
    choose_files,
    names_of,
    open_task,
    run_task,
    split_options,
)
from st_connectors.cli.options import (
    Address,
    Adopt,
    AsJson,
    Collection,
    CollectionBackend,
    CollectionDtype,
    CollectionOptions,
    Filterable,
    FusionMethod,
    NewOrMovedDense,
    NewOrMovedSparse,
    RerankerModel,
    TextField,
    TrustModel,
)
from st_connectors.cli.output import print_error
from st_connectors.cli.reading import explain_change, same_command
from st_connectors.cli.sources import find_sources, make_reading
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_connectors.ingest import Resume

__all__ = ["ingest"]


def ingest(
    sources: shared.Sources = None,
    *,
    address: Address,
    collection: Collection,
    create: shared.Create = False,
    dense: NewOrMovedDense = None,
    sparse: NewOrMovedSparse = None,
    reranker: RerankerModel = None,
    text: TextField = False,
    filterable: Filterable = None,
    fusion: FusionMethod = None,
    backend: CollectionBackend = None,
    dtype: CollectionDtype = None,
    adopt: Adopt = None,
    trust_model: TrustModel = False,
    id_field: shared.IdField = None,
    text_field: shared.TextFields = None,
    maps: shared.Maps = None,
    form: shared.Format = None,
    delimiter: shared.Delimiter = None,
    quote: shared.Quote = None,
    encoding: shared.Encoding = None,
    max_document: shared.MaxDocument = None,
    refused: shared.Refused = None,
    max_refused: shared.MaxRefused = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File from which an interrupted ingest continues (default: in the folder .st-connectors beside the "
            "source).",
        ),
    ] = None,
    no_state: Annotated[bool, typer.Option("--no-state", help="Write no state; an interruption starts over.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start from the beginning, even if the ingest was interrupted.")
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Continue although the source, a model or an option has changed since."),
    ] = False,
    max_wait: shared.MaxWait = 300.0,
    writers: shared.Writers = None,
    device: shared.Devices = None,
    split: shared.Splitting = None,
    split_tokens: shared.SplitTokens = None,
    batch: shared.Batch = 512,
    sql: shared.Sql = None,
    bulk: shared.Bulk = False,
    progress: shared.Progress = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode documents and store them in a collection.

    Each row of a table (CSV, TSV, Parquet, Arrow, Feather, or the result of --sql) and each object of a JSON or JSONL
    file is a document: an id, a text, and the remaining columns as payload. In a folder, each text or Markdown file is
    a document. A document replaces a stored record with the same id. The exit status is 1 if documents were refused;
    all other documents are stored.

    An ingest that was interrupted, in whatever way, continues when the same command is run again.

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --filterable year:int

    Example: st-connectors ingest 'data/*.csv.gz' --in qdrant+edge:library --collection books --create --id-field isbn
    --map text="{title}. {summary}" --refused refused.jsonl

    Example: st-connectors ingest --sql sqlite:shop.db 'SELECT sku AS id, title AS text, price FROM products'
    --in qdrant+edge:shop --collection products --create --filterable price:float

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --dense
    ./minilm-int8 --backend openvino --dtype int8
    """
    from st_connectors.models import ModelOptions

    _check_state_options(state, no_state=no_state, is_special=restart or accept_changes)
    inputs = find_sources([expand_home(source) for source in sources or ()], form, sql)
    reading = make_reading(
        id_field,
        text_field,
        maps,
        delimiter=delimiter,
        quote=quote,
        encoding=encoding,
        max_document=max_document,
    )
    splitting = split_options(split, split_tokens, [each.form for each in inputs])
    options = CollectionOptions(dense, sparse, reranker, text, tuple(filterable or ()), fusion)
    target = TaskTarget(address, collection, options, ModelOptions(backend, dtype), adopt, create, trust_model)
    writing = Writing(splitting, batch, max_refused, writers, device or (), max_wait, bulk, progress, as_json)
    check_options(inputs, writing, refused, state)
    with open_task(target, inputs, reading, writing) as task:
        files = choose_files(task, state=state, no_state=no_state, refused=refused)
        resume = _resume(files.state, task, restart=restart, accept_changes=accept_changes)
        command = same_command("--restart")
        again = None if resume is None else f"{AGAIN}: {command}"
        anew = command if resume is None else f"{command} --restart"
        call = partial(task.index.ingest, resume=resume)
        run_task(task, call, files.dead_letters, hint=again or AGAIN, failure_hint=again, restart=anew)


def _check_state_options(state: Path | None, *, no_state: bool, is_special: bool) -> None:
    if no_state and (state is not None or is_special):
        raise ValueError("--no-state excludes --state, --restart and --accept-changes; remove it")


def _resume(path: Path | None, task: Task, *, restart: bool, accept_changes: bool) -> Resume | None:
    """Return how the ingest continues after an interruption, and say so if it does; None without a state."""
    from st_connectors.ingest import Resume

    if path is None:
        return None
    description: dict[str, Any] = {"name": names_of(task.inputs), "inputs": task.documents.identity.to_json()}
    resume = Resume(path, description, restart, accept_changes, explain_change)
    _note_resumed(resume)
    return resume


def _note_resumed(resume: Resume) -> None:
    """Say after how many documents an interrupted ingest continues."""
    from st_connectors.ingest.state import StateError, read_state

    try:
        stored = None if resume.restart else read_state(resume.path)
    except StateError:
        return  # raised by the ingest
    if stored is not None and stored[0].report.read:
        print_error(f"st-connectors: continuing after {stored[0].report.read:,} documents (state: {resume.path})")
