"""``st-connectors ingest``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    print_error,
    print_json,
    progress_bar,
)
from st_connectors.cli.sources import (
    Input,
    Tracked,
    count_inputs,
    find_sources,
    make_reading,
    measure,
    read_inputs,
    refused_file,
)
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_connectors.index import Index, Split
    from st_connectors.ingest import IngestReport
    from st_connectors.ingest.documents import Document, DocumentError
    from st_connectors.ingest.sources import Reading
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
        typer.Option(metavar="FILE", help="Write refused documents to a JSONL file, with the error and the place."),
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
    as_json: AsJson = False,
) -> None:
    """Encode documents and store them in a collection.

    Each row of a table (CSV, TSV, Parquet, Arrow, Feather, or the result of --sql) and each object of a JSON or JSONL
    file is a document: an id, a text, and the remaining columns as payload. In a folder, each text or Markdown file is
    a document. A document replaces a stored record with the same id. The exit status is 1 if documents were refused;
    all other documents are stored.

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --filterable year:int

    Example: st-connectors ingest 'data/*.csv.gz' --in qdrant+edge:library --collection books --create --id-field isbn
    --map text="{title}. {summary}" --refused refused.jsonl

    Example: st-connectors ingest --sql sqlite:shop.db 'SELECT sku AS id, title AS text, price FROM products'
    --in qdrant+edge:shop --collection products --create --filterable price:float

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --dense
    ./minilm-int8 --backend openvino --dtype int8
    """
    from st_connectors.ingest import IngestFailed, IngestInterrupted
    from st_connectors.ingest.sources import Notes
    from st_connectors.models import ModelOptions
    from st_connectors.registry import bulk_loading

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
    if bulk and not index.store.capabilities.bulk_loading:
        scheme = address.partition(":")[0]
        print_error(f"st-connectors: --bulk has no effect: {scheme} has no bulk-loading settings")
    with index:
        reading = replace(reading, filterable=index.schema.filterable, notes=notes, meter=measure(inputs))
        documents = Tracked(_documents(inputs, reading, index), reading.meter)
        try:
            with (
                refused_file(refused, inputs) as on_refused,
                progress_bar(f"ingesting into {collection}", lambda: documents.expected) as progress,
                bulk_loading(address, collection) if bulk else nullcontext(),
            ):
                report = index.ingest(documents, split=splitting, batch=batch, progress=progress, on_refused=on_refused)
        except IngestInterrupted as error:
            total = count_inputs(inputs, reading)
            exit_with_interrupted(error.report, as_json=as_json, total=total, read=documents.read)
        except IngestFailed as error:
            if as_json:
                print_json(error.report.to_json())
            raise
        unfilled = _unfilled(index, report)
    if not as_json:
        note_if_lost(address, index.store.capabilities)
    more = "--refused FILE writes all of them" if refused is None else f"{refused} has all of them"
    exit_with_report(report, as_json=as_json, notes=notes.sentences, unfilled=unfilled, more=more)


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


def _documents(inputs: Sequence[Input], reading: Reading, index: Index) -> Iterator[object]:
    documents = read_inputs(inputs, reading)
    return documents if index.text_key == "text" else map(_without_text, documents)


def _without_text(document: Document | DocumentError) -> Document | DocumentError:
    """Return a document without its text under the key "text", because the collection has another key for texts."""
    from st_connectors.ingest.documents import Document

    if not isinstance(document, Document):
        return document
    return replace(document, payload={key: value for key, value in document.payload.items() if key != "text"})
