"""What the commands that read, encode and store documents have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any, NoReturn

from st_connectors.cli.opening import Models, open_index
from st_connectors.cli.options import NONE, CollectionOptions, parse_filterable, parse_fusion
from st_connectors.cli.output import (
    check_progress,
    exit_with_interrupted,
    exit_with_report,
    note_if_lost,
    one_line,
    print_error,
    print_json,
    progress_bar,
)
from st_connectors.cli.reading import Files, InputDocuments, files_beside, origin_of
from st_connectors.cli.sources import Input, count_inputs
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_connectors.index import Index, Split
    from st_connectors.ingest import IngestFailed, IngestReport, Waiting
    from st_connectors.ingest.documents import Document, DocumentError
    from st_connectors.ingest.sources import Notes, Reading
    from st_connectors.models import ModelOptions

__all__ = [
    "AGAIN",
    "Task",
    "TaskTarget",
    "Writing",
    "check_options",
    "choose_files",
    "names_of",
    "open_target",
    "open_task",
    "run_task",
    "split_options",
]

AGAIN = "run the same ingest again to store the rest"


@dataclass(frozen=True, slots=True)
class TaskTarget:
    """The options that name a collection, and those that describe it if it does not exist."""

    address: str
    collection: str
    options: CollectionOptions
    models: ModelOptions
    adopt: str | None
    create: bool
    trust: bool


@dataclass(frozen=True, slots=True)
class Writing:
    """The options of how documents are encoded and written, and of what is shown."""

    split: Split | None
    batch: int
    max_refused: str | None
    writers: int | None
    devices: Sequence[str]
    max_wait: float
    bulk: bool
    progress: str
    as_json: bool


@dataclass(frozen=True, slots=True)
class Task:
    """An open collection, and the sources whose documents are stored in it.

    A sync replaces the dead letters of the same sources also if they have changed since. ``drawing`` ends the progress
    when it is closed.
    """

    index: Index
    target: TaskTarget
    inputs: Sequence[Input]
    reading: Reading
    documents: InputDocuments
    notes: Notes
    writing: Writing
    is_sync: bool = False
    drawing: ExitStack = field(default_factory=ExitStack)


@contextmanager
def open_task(
    target: TaskTarget,
    inputs: Sequence[Input],
    reading: Reading,
    writing: Writing,
    *,
    index: Index | None = None,
    is_sync: bool = False,
) -> Iterator[Task]:
    """Open the collection of a command, by default ``open_target``, for a ``with`` block."""
    from st_connectors.ingest.sources import Notes

    notes = Notes(None if writing.as_json else _print_note)
    with open_target(target) if index is None else index as opened:
        if writing.bulk:
            _note_bulk(opened, target.address)
        reading = replace(reading, filterable=opened.schema.filterable, notes=notes)
        again = "run the same command again" if is_sync else "run the same command again with --restart"
        documents = InputDocuments(inputs, reading, lambda value: _for_index(value, opened), again)
        yield Task(opened, target, inputs, reading, documents, notes, writing, is_sync)


def open_target(target: TaskTarget) -> Index:
    """Open or create the collection of a command."""
    place = (target.address, target.collection, target.options, target.models)
    if target.adopt is not None:
        return _adopt(*place, target.adopt, create=target.create)
    return (_create if target.create else _open)(*place, trust=target.trust)


def run_task(
    task: Task,
    ingest: Callable[..., IngestReport],
    letters: Path | None,
    *,
    hint: str,
    failure_hint: str | None,
    restart: str,
) -> NoReturn:
    """Call a method of the index with the documents and options of a command, print its report and exit.

    ``letters`` is the file of the dead letters. ``hint`` says how to continue after Ctrl-C, and ``failure_hint`` how to
    continue after an error. ``restart`` is the command line that starts from the beginning.
    """
    from st_connectors.ingest import IngestFailed, IngestInterrupted

    as_json = task.writing.as_json
    try:
        report = _call(task, ingest, letters)
    except IngestInterrupted as error:
        total = count_inputs(task.inputs, task.reading)
        exit_with_interrupted(error.report, as_json=as_json, total=total, read=task.documents.read, hint=hint)
    except IngestFailed as error:
        if as_json:
            print_json(error.report.to_json())
        else:
            _print_next_step(error, letters, failure_hint, restart)
        raise
    unfilled = _unfilled(task.index, report)
    if not as_json:
        note_if_lost(task.target.address, task.index.store.capabilities)
    more = _repair_hint(letters)
    exit_with_report(report, as_json=as_json, notes=task.notes.sentences, unfilled=unfilled, more=more)


def _call(task: Task, ingest: Callable[..., IngestReport], letters: Path | None) -> IngestReport:
    from st_connectors.ingest import DeadLetterFile, Patience
    from st_connectors.registry import bulk_loading

    target, writing = task.target, task.writing
    name = f"syncing {target.collection}" if task.is_sync else f"ingesting into {target.collection}"
    bar = progress_bar(name, lambda: task.documents.expected, form=writing.progress)
    origin = origin_of(task.inputs, task.documents.identity)[: 1 if task.is_sync else None]
    with task.drawing, bulk_loading(target.address, task.index.schema.collection) if writing.bulk else nullcontext():
        return ingest(
            task.documents,
            split=writing.split,
            batch=writing.batch,
            progress=task.drawing.enter_context(bar),
            dead_letters=None if letters is None else DeadLetterFile(letters, origin),
            max_refused=writing.max_refused,
            writers=writing.writers,
            device=writing.devices,
            patience=Patience(writing.max_wait),
            on_wait=_print_wait,
            on_interrupt=_print_interrupt,
        )


def _note_bulk(index: Index, address: str) -> None:
    """Say that a store has no settings for bulk loading."""
    if not index.store.capabilities.bulk_loading:
        scheme = address.partition(":")[0]
        print_error(f"st-connectors: --bulk has no effect: {scheme} has no bulk-loading settings")


def names_of(inputs: Sequence[Input]) -> str:
    """Return the names of the inputs for a message."""
    unnamed = ("a query" if each.query else "standard input" for each in inputs)
    names = [str(each.path or other) for each, other in zip(inputs, unnamed, strict=True)]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def check_options(inputs: Sequence[Input], writing: Writing, refused: Path | None, state: Path | None = None) -> None:
    """Raise ValueError for values of options that are invalid, before the command opens or creates a collection."""
    from st_connectors.ingest.limits import parse_max_refused

    if writing.max_refused is not None:
        parse_max_refused(writing.max_refused)
    check_progress(writing.progress)
    _check_files(inputs, *(None if path is None else Path(expand_home(path)) for path in (state, refused)))


def _check_files(inputs: Sequence[Input], state: Path | None, letters: Path | None) -> None:
    for option, path in (("--state", state), ("--refused", letters)):
        for each in inputs:
            if path is not None and each.path is not None and path.exists() and path.samefile(each.path):
                raise ValueError(f"{option} {path}: the file is read by this ingest; choose another one")
    if state is not None and letters is not None and state.resolve() == letters.resolve():
        raise ValueError(f"--state and --refused are the same file, {state}; choose another one for the state")


def choose_files(task: Task, *, refused: Path | None, state: Path | None = None, no_state: bool = True) -> Files:
    """Return the files of the state and the dead letters: those of the options, or those beside the source.

    Raises ValueError if one of them is an input, or if they are the same file.
    """
    from st_connectors.registry import absolute_address

    address = absolute_address(task.target.address)
    beside = files_beside(task.inputs, task.documents.identity, address, task.index.collection)
    is_resumable = task.index.store.capabilities.persistent and not no_state
    if is_resumable and state is None and beside.state is None and all(each.path is not None for each in task.inputs):
        print_error("st-connectors: no state is written beside the source: --state FILE names another place")
    state_path = Path(expand_home(state)) if state is not None else beside.state if is_resumable else None
    letters = Path(expand_home(refused)) if refused is not None else beside.dead_letters
    _check_files(task.inputs, state_path, letters)
    return Files(state_path, letters)


def _print_next_step(error: IngestFailed, letters: Path | None, hint: str | None, restart: str) -> None:
    """Say how to go on after a failure, unless its message says so."""
    from st_connectors.cli.reading import SourceChangedError
    from st_connectors.ingest import DeletionRefusedError, StateError, TooManyRefusedError

    if error.report.refused_total:
        print_error(f"st-connectors: {_repair_hint(letters)}")
    match error.__cause__:
        case SourceChangedError() | StateError() | DeletionRefusedError():
            pass
        case TooManyRefusedError():
            print_error(f"st-connectors: or correct the options, and start again: {restart}")
        case _ if hint is not None and error.report.read:
            print_error(f"st-connectors: {hint}")


def _repair_hint(letters: Path | None) -> str:
    if letters is None:
        return "--refused FILE writes refused documents to a file, from which they can be ingested again"
    return f"repair and ingest refused documents again: {join(['st-connectors', 'replay', str(letters)])}"


def _print_wait(waiting: Waiting) -> None:
    print_error(
        f"st-connectors: waiting {waiting.wait:.1f} s for the store, down for {waiting.since:.0f} of at most "
        f"{waiting.limit:.0f} s: {one_line(waiting.error)}"
    )


def _print_interrupt() -> None:
    if sys.stderr.isatty():
        print_error("st-connectors: storing what is encoded; Ctrl-C again stops at once")


def _unfilled(index: Index, report: IngestReport) -> list[str]:
    """Return the filterable fields in which neither a document of the ingest nor a stored record has a value."""
    from st_connectors.filters import Exists

    return [name for name in report.unfilled if not index.count(Exists(name))]


def _print_note(sentence: str) -> None:
    print_error(f"st-connectors: {sentence}")


def split_options(split: bool | None, tokens: int | None, forms: Sequence[str | None]) -> Split | None:
    """Return how to split long texts, or None; by default they are split if a window size or a text file was passed."""
    from st_connectors.index import Split

    if split is False and tokens is not None:
        raise ValueError("--split-tokens and --no-split exclude each other; pass only one of them")
    is_splitting = split if split is not None else tokens is not None or "text" in forms
    return Split(tokens=tokens) if is_splitting else None


def _create(
    address: str, collection: str, options: CollectionOptions, model_options: ModelOptions, *, trust: bool
) -> Index:
    from st_connectors.index import Index
    from st_connectors.models import DEFAULT_BACKEND

    if trust:
        raise ValueError("--trust-model applies to existing collections only; remove it or --create")

    return Index.create(
        address,
        collection=collection,
        dense=options.dense_model,
        sparse=options.sparse_model,
        reranker=options.reranker,
        text=options.text,
        filterable=parse_filterable(options.filterable),
        fusion=parse_fusion(options.fusion),
        backend=DEFAULT_BACKEND if model_options.backend is None else model_options.backend,
        dtype=model_options.dtype,
    )


def _open(
    address: str, collection: str, options: CollectionOptions, model_options: ModelOptions, *, trust: bool
) -> Index:
    """Open an existing collection; raise an error if it does not exist, so that a misspelled name is reported."""
    from st_connectors.errors import NotFound
    from st_connectors.index import Index

    creating = [
        f"--{field.name}"
        for field in fields(options)
        if (value := getattr(options, field.name)) and (field.name not in {"dense", "sparse"} or value == NONE)
    ]
    if creating:
        raise ValueError(f"{', '.join(creating)} describes a new collection; add --create")
    try:
        return Index.open(
            address,
            collection=collection,
            dense=options.dense,
            sparse=options.sparse,
            trust_model=trust,
            backend=model_options.backend,
            dtype=model_options.dtype,
        )
    except NotFound as error:
        message = f"{error.message}; add --create to create it"
        raise NotFound(message, store=error.store, operation=error.operation) from error


def _adopt(
    address: str,
    collection: str,
    options: CollectionOptions,
    model_options: ModelOptions,
    adopt: str,
    *,
    create: bool,
) -> Index:
    if create or options.text or options.fusion:
        raise ValueError("--create, --text and --fusion describe a new collection; --adopt opens an existing one")
    models = Models(options.dense, options.sparse, options.reranker, model_options)
    return open_index(address, collection, models, adopt, options.filterable, trust=False)


def _for_index(document: Any, index: Index) -> object:
    """Return a document as the collection stores it."""
    return document if index.text_key == "text" else _without_text(document)


def _without_text(document: Document | DocumentError) -> Document | DocumentError:
    """Return a document without its text under the key "text", because the collection has another key for texts."""
    from st_connectors.ingest.documents import Document

    if not isinstance(document, Document):
        return document
    return replace(document, payload={key: value for key, value in document.payload.items() if key != "text"})
