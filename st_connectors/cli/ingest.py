"""``st-connectors ingest``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.opening import Models, open_index
from st_connectors.cli.options import (
    NONE,
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
    parse_filterable,
    parse_fusion,
)
from st_connectors.cli.output import (
    exit_with_interrupted,
    exit_with_report,
    note_if_lost,
    one_line,
    print_error,
    print_json,
    progress_bar,
)
from st_connectors.cli.reading import Files, InputDocuments, explain_change, files_beside, same_command
from st_connectors.cli.sources import Input, count_inputs, find_sources, make_reading
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_connectors.index import Index, Split
    from st_connectors.ingest import IngestFailed, IngestReport, Resume, Waiting
    from st_connectors.ingest.documents import Document, DocumentError
    from st_connectors.models import ModelOptions

__all__ = ["ingest"]

TextFields = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Column or key of the text (default: text). Repeat to join several."),
]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=TEMPLATE",
        help="Field composed of columns, such as text='{title}. {body}'. Repeat for several fields.",
    ),
]
FORMATS = (
    "Format of the sources: jsonl, json, csv, tsv, parquet, arrow (also Feather) or text (default: by file name, with "
    "or without .gz, .bz2, .xz or .zst)."
)
Sql = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--sql",
        metavar="URL QUERY",
        help="Read the rows of a query: sqlite:PATH, duckdb:PATH, postgresql://USER@HOST/NAME, mysql://USER@HOST/NAME, "
        "or NAME+adbc:URI for a driver of ADBC. The password is read from ST_SQL_PASSWORD.",
    ),
]
Bulk = Annotated[
    bool,
    typer.Option(
        "--bulk", help="Apply the store's bulk-loading settings until the ingest ends; says so if it has none."
    ),
]


def ingest(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE...", help="Files, folders or patterns to read; - reads standard input."),
    ] = None,
    *,
    address: Address,
    collection: Collection,
    create: Annotated[bool, typer.Option("--create", help="Create the collection if it does not exist.")] = False,
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
    id_field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column or key of the document id (default: id).")
    ] = None,
    text_field: TextFields = None,
    maps: Maps = None,
    form: Annotated[str | None, typer.Option("--format", help=FORMATS)] = None,
    delimiter: Annotated[
        str | None, typer.Option(metavar="CHARACTER", help="Character between the cells of CSV files, or tab.")
    ] = None,
    quote: Annotated[
        str | None,
        typer.Option(
            metavar="CHARACTER",
            help='Character around cells of CSV files (default: "), or none if quotes are ordinary characters.',
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Encoding of texts (default: UTF-8; another one is guessed, and shown)."),
    ] = None,
    max_document: Annotated[
        str | None,
        typer.Option(metavar="BYTES", help="Refuse documents larger than this, such as 100MB (default: 64MiB)."),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSONL file for refused documents, which the command replay ingests again (default: in the folder "
            ".st-connectors beside the source).",
        ),
    ] = None,
    max_refused: Annotated[
        str | None,
        typer.Option(metavar="N|P%", help="Stop after this number of refused documents, or this share of all."),
    ] = None,
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
    max_wait: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long to wait for a store that is down before stopping."),
    ] = 300.0,
    writers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Most requests to the store at a time (default: by the store)."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Device to encode on, such as cuda:0 or cpu. Repeat for several processes."),
    ] = None,
    split: Annotated[
        bool | None,
        typer.Option(help="Split long texts into windows (default: only for text files or with --split-tokens)."),
    ] = None,
    split_tokens: Annotated[
        int | None,
        typer.Option(
            min=8, metavar="N", help="Tokens per window (default: 256, or the model's maximum if that is less)."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Documents encoded and written per batch.")] = 512,
    sql: Sql = None,
    bulk: Bulk = False,
    progress: Annotated[
        str,
        typer.Option(
            metavar="auto|json|none",
            help="Progress: auto draws a line at a terminal, json prints one line of JSON a second to standard error.",
        ),
    ] = "auto",
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
    from st_connectors.ingest import IngestFailed, IngestInterrupted, Patience
    from st_connectors.ingest.sources import Notes
    from st_connectors.models import ModelOptions
    from st_connectors.registry import bulk_loading

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
    splitting = _split_options(split, split_tokens, [each.form for each in inputs])
    options = CollectionOptions(dense, sparse, reranker, text, tuple(filterable or ()), fusion)
    model_options = ModelOptions(backend, dtype)
    notes = Notes(None if as_json else _print_note)
    if adopt is not None:
        index = _adopt(address, collection, options, model_options, adopt, create=create)
    else:
        index = (_create if create else _open)(address, collection, options, model_options, trust=trust_model)
    if bulk:
        _note_bulk(index, address)
    with index:
        reading = replace(reading, filterable=index.schema.filterable, notes=notes)
        documents = InputDocuments(inputs, reading, lambda value: _for_index(value, index))
        files = _choose_files(inputs, documents, index, address, state=state, no_state=no_state, refused=refused)
        resume = _resume(files.state, inputs, documents, restart=restart, accept_changes=accept_changes)
        try:
            with (
                progress_bar(f"ingesting into {collection}", lambda: documents.expected, form=progress) as show,
                bulk_loading(address, collection) if bulk else nullcontext(),
            ):
                report = index.ingest(
                    documents,
                    split=splitting,
                    batch=batch,
                    progress=show,
                    resume=resume,
                    dead_letters=files.dead_letters,
                    max_refused=max_refused,
                    writers=writers,
                    device=device,
                    patience=Patience(max_wait),
                    on_wait=_print_wait,
                    on_interrupt=_print_interrupt,
                )
        except IngestInterrupted as error:
            total = count_inputs(inputs, reading)
            hint = _AGAIN if resume is None else f"{_AGAIN}: {same_command('--restart')}"
            exit_with_interrupted(error.report, as_json=as_json, total=total, read=documents.read, hint=hint)
        except IngestFailed as error:
            if as_json:
                print_json(error.report.to_json())
            else:
                _print_next_step(error, resume, files.dead_letters)
            raise
        unfilled = _unfilled(index, report)
    if not as_json:
        note_if_lost(address, index.store.capabilities)
    more = _repair_hint(files.dead_letters)
    exit_with_report(report, as_json=as_json, notes=notes.sentences, unfilled=unfilled, more=more)


_AGAIN = "run the same ingest again to store the rest"


def _check_state_options(state: Path | None, *, no_state: bool, is_special: bool) -> None:
    if no_state and (state is not None or is_special):
        raise ValueError("--no-state excludes --state, --restart and --accept-changes; remove it")


def _note_bulk(index: Index, address: str) -> None:
    """Say that a store has no settings for bulk loading."""
    if not index.store.capabilities.bulk_loading:
        scheme = address.partition(":")[0]
        print_error(f"st-connectors: --bulk has no effect: {scheme} has no bulk-loading settings")


def _resume(
    path: Path | None, inputs: Sequence[Input], documents: InputDocuments, *, restart: bool, accept_changes: bool
) -> Resume | None:
    """Return how the ingest continues after an interruption, and say so if it does; None without a state."""
    from st_connectors.ingest import Resume

    if path is None:
        return None
    description: dict[str, Any] = {"name": _names(inputs), "inputs": documents.identity.to_json()}
    resume = Resume(path, description, restart, accept_changes, explain_change)
    _note_resumed(resume)
    return resume


def _names(inputs: Sequence[Input]) -> str:
    """Return the names of the inputs for a message."""
    unnamed = ("a query" if each.query else "standard input" for each in inputs)
    names = [str(each.path or other) for each, other in zip(inputs, unnamed, strict=True)]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _choose_files(
    inputs: Sequence[Input],
    documents: InputDocuments,
    index: Index,
    address: str,
    *,
    state: Path | None,
    no_state: bool,
    refused: Path | None,
) -> Files:
    """Return the files of the state and the dead letters: those of the options, or those beside the source.

    Raises ValueError if one of them is an input.
    """
    from st_connectors.registry import absolute_address

    beside = files_beside(inputs, documents.identity, absolute_address(address), index.schema.collection)
    is_resumable = index.store.capabilities.persistent and not no_state
    if is_resumable and state is None and beside.state is None and all(each.path is not None for each in inputs):
        print_error("st-connectors: no state is written beside the source: --state FILE names another place")
    state_path = Path(expand_home(state)) if state is not None else beside.state if is_resumable else None
    letters = Path(expand_home(refused)) if refused is not None else beside.dead_letters
    for option, path in (("--state", state_path), ("--refused", letters)):
        for each in inputs:
            if path is not None and each.path is not None and path.exists() and path.samefile(each.path):
                raise ValueError(f"{option} {path}: the file is read by this ingest; choose another one")
    return Files(state_path, letters)


def _note_resumed(resume: Resume) -> None:
    """Say after how many documents an interrupted ingest continues."""
    from st_connectors.ingest.state import StateError, read_state

    try:
        stored = None if resume.restart else read_state(resume.path)
    except StateError:
        return  # raised by the ingest
    if stored is not None and stored[0].report.read:
        print_error(f"st-connectors: continuing after {stored[0].report.read:,} documents (state: {resume.path})")


def _print_next_step(error: IngestFailed, resume: Resume | None, letters: Path | None) -> None:
    """Say how to go on after a failure, unless its message says so."""
    from st_connectors.cli.reading import SourceChangedError
    from st_connectors.ingest import StateError, TooManyRefusedError

    if error.report.refused_total:
        print_error(f"st-connectors: {_repair_hint(letters)}")
    match error.__cause__:
        case SourceChangedError() | StateError():
            pass
        case TooManyRefusedError():
            print_error(
                f"st-connectors: or correct the options, and start again: {same_command('--restart')} --restart"
            )
        case _ if resume is not None and error.report.read:
            print_error(f"st-connectors: {_AGAIN}: {same_command('--restart')}")


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


def _split_options(split: bool | None, tokens: int | None, forms: Sequence[str | None]) -> Split | None:
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
