"""``st-connectors sync``."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn
from uuid import uuid4

import typer

from st_connectors.cli import ingest_options as shared
from st_connectors.cli.ingesting import (
    Task,
    TaskTarget,
    Writing,
    check_options,
    choose_files,
    names_of,
    open_target,
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
from st_connectors.cli.output import PARTIAL, SUCCESS, ask, print_error, print_json, print_line
from st_connectors.cli.reading import same_command
from st_connectors.cli.sources import find_sources, make_reading
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.ingest import DeleteMissing, Missing

__all__ = ["sync"]

AGAIN = "run the same sync again to store the rest"
DEFAULT_LIMIT = "20%"


def sync(
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
    delete_missing: Annotated[
        bool,
        typer.Option("--delete-missing", help="Delete the documents of the collection that are not in the sources."),
    ] = False,
    delete_limit: Annotated[
        str | None,
        typer.Option(
            metavar="P%",
            help=f"Delete at most this share of the collection, otherwise nothing (default: {DEFAULT_LIMIT}).",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking for confirmation.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change, and about how long it would take.")
    ] = False,
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
    """Make a collection equal to its sources; only new and changed texts are encoded.

    Sources, documents and exit statuses are those of ingest. Documents that are stored as they are in the sources are
    neither encoded nor written; if only the payload of a document has changed, its stored vectors are used. A sync that
    was interrupted is finished by the same command.

    With --delete-missing, documents that are not in the sources are deleted after all others are stored. Nothing is
    deleted if the sources are empty or could not be read completely.

    Example: st-connectors sync books.jsonl --in qdrant+edge:library --collection books --create --dry-run

    Example: st-connectors sync 'notes/**/*.md' --in qdrant+edge:library --collection notes --create --delete-missing
    --yes --backend openvino
    """
    from st_connectors.models import ModelOptions

    limit = _deletion_limit(delete_limit, is_deleting=delete_missing, yes=yes)
    if delete_missing and not (yes or dry_run or sys.stdin.isatty()):
        raise ValueError("cannot ask whether to delete documents: standard input is not a terminal; add --yes")
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
    writing = Writing(
        splitting, batch, max_refused, writers, device or (), max_wait, bulk and not dry_run, progress, as_json
    )
    check_options(inputs, writing, refused)
    index = _open_unchanged(target) if dry_run else None
    with open_task(target, inputs, reading, writing, index=index, is_sync=True) as task:
        if dry_run:
            _show_plan(task)
        deleting = _deletion(task, limit, yes=yes) if delete_missing else False
        letters = choose_files(task, refused=refused).dead_letters
        call = partial(task.index.sync, delete_missing=deleting)
        again = f"{AGAIN}: {same_command()}"
        run_task(task, call, letters, hint=again, failure_hint=again, restart=same_command())


def _deletion_limit(text: str | None, *, is_deleting: bool, yes: bool) -> float:
    """Return the share of a collection that may be deleted."""
    if not is_deleting and (text is not None or yes):
        raise ValueError("--delete-limit and --yes apply to --delete-missing; add it, or remove them")
    value = DEFAULT_LIMIT if text is None else text
    try:
        share = float(value.removesuffix("%")) / 100 if value.endswith("%") else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"--delete-limit {value!r}: expected a share from 0% to 100%")
    return share


def _deletion(task: Task, limit: float, *, yes: bool) -> DeleteMissing:
    from st_connectors.ingest import DeleteMissing

    def confirm(missing: Missing) -> bool:
        if yes:
            return True
        task.drawing.close()
        try:
            is_agreed = ask(f"delete {missing} from {task.target.collection!r}")
        except typer.Abort as error:  # Ctrl-C, or the end of the input
            raise KeyboardInterrupt from error
        if not is_agreed:
            print_error("st-connectors: nothing was deleted")
        return is_agreed

    return DeleteMissing(limit, confirm, names_of(task.inputs), lambda: task.notes.gap)


def _open_unchanged(target: TaskTarget) -> Index:
    """Open a collection without creating it; for one that does not exist, return an empty one in memory."""
    from st_connectors.errors import NotFound

    options = replace(target.options, reranker=None, text=False, filterable=(), fusion=None)
    try:
        return open_target(replace(target, create=False, options=options) if target.create else target)
    except NotFound:
        if not target.create:
            raise
    return open_target(replace(target, address=f"memory:{uuid4()}"))


def _show_plan(task: Task) -> NoReturn:
    plan = task.index.plan_sync(task.documents, split=task.writing.split, batch=task.writing.batch)
    if task.writing.as_json:
        notes = list(task.notes.sentences)
        print_json(plan.to_json() | ({"notes": notes} if notes else {}))
    else:
        print_line(str(plan))
    raise typer.Exit(PARTIAL if plan.refused else SUCCESS)
