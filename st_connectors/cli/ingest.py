"""``st-connectors ingest``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.opening import Models, open_index
from st_connectors.cli.options import (
    Address,
    Adopt,
    AsJson,
    Backend,
    Collection,
    CollectionDtype,
    CollectionOptions,
    DenseModel,
    Filterable,
    FusionMethod,
    RerankerModel,
    SparseModel,
    TextField,
    TrustModel,
    parse_filterable,
    parse_fusion,
)
from st_connectors.cli.output import exit_with_interrupted, exit_with_report, print_error, print_json, progress_bar

if TYPE_CHECKING:
    from st_connectors.index import Index, Split
    from st_connectors.ingest.documents import Document, DocumentError
    from st_connectors.ingest.sources import Format, Read, Reading
    from st_connectors.models import ModelOptions

__all__ = ["ingest"]

TextFields = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Column or key of the text (default: text). Repeat to join several."),
]
Bulk = Annotated[
    bool,
    typer.Option(
        "--bulk", help="Apply the store's bulk-loading settings until the ingest ends; says so if it has none."
    ),
]


def ingest(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Files or folders to read; - reads standard input.")
    ],
    *,
    address: Address,
    collection: Collection,
    create: Annotated[bool, typer.Option("--create", help="Create the collection if it does not exist.")] = False,
    dense: DenseModel = None,
    sparse: SparseModel = None,
    reranker: RerankerModel = None,
    text: TextField = False,
    filterable: Filterable = None,
    fusion: FusionMethod = None,
    backend: Backend = "torch",
    dtype: CollectionDtype = None,
    adopt: Adopt = None,
    trust_model: TrustModel = False,
    id_field: Annotated[str, typer.Option(metavar="NAME", help="Column or key of the document id.")] = "id",
    text_field: TextFields = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Format of the sources: jsonl, csv, parquet or text (default: by file name)."),
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
    bulk: Bulk = False,
    as_json: AsJson = False,
) -> None:
    """Encode documents and store them in a collection.

    Each row of a JSONL, CSV or Parquet file is a document: an id, a text, and the remaining columns as payload. In a
    folder, each text or Markdown file is a document. A document replaces a stored record with the same id. The exit
    status is 1 if documents were refused; all other documents are stored.

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --filterable year:int

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --dense
    ./minilm-int8 --backend openvino --dtype int8
    """
    from st_connectors.ingest import IngestFailed, IngestInterrupted
    from st_connectors.models import ModelOptions
    from st_connectors.registry import bulk_loading

    inputs = [(source, _format_of(source, form)) for source in sources]
    splitting = _split_options(split, split_tokens, [form for _, form in inputs])
    options = CollectionOptions(dense, sparse, reranker, text, tuple(filterable or ()), fusion)
    model_options = ModelOptions(backend, dtype)
    if adopt is not None:
        index = _adopt(address, collection, options, model_options, adopt, create=create)
    else:
        index = (_create if create else _open)(address, collection, options, model_options, trust=trust_model)
    if bulk and not index.store.capabilities.bulk_loading:
        scheme = address.partition(":")[0]
        print_error(f"st-connectors: --bulk has no effect: {scheme} has no bulk-loading settings")
    with index, progress_bar(f"ingesting into {collection}") as progress:
        documents = _documents(inputs, id_field, text_field or ["text"], index)
        try:
            with bulk_loading(address, collection) if bulk else nullcontext():
                report = index.ingest(documents, split=splitting, batch=batch, progress=progress)
        except IngestInterrupted as error:
            exit_with_interrupted(error.report, as_json=as_json)
        except IngestFailed as error:
            if as_json:
                print_json(error.report.to_json())
            raise
    if not (index.store.capabilities.persistent or as_json):
        print_error(f"st-connectors: {address} is not persistent: its records are lost when this command ends")
    exit_with_report(report, as_json=as_json)


def _format_of(source: str, form: str | None) -> Format:
    """Return the format of a source; raise ValueError for an unknown format and for a path that does not exist."""
    from st_connectors.ingest.sources import Format, format_of

    if form is not None and form not in {each.value for each in Format}:
        raise ValueError(f"unknown --format {form!r}; expected one of {', '.join(Format)}")
    if source == "-":
        return Format(form) if form else Format.JSONL
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source}: no such file or folder")
    return Format(form) if form else format_of(path)


def _split_options(split: bool | None, tokens: int | None, forms: Sequence[str]) -> Split | None:
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
        backend=model_options.backend,
        dtype=model_options.dtype,
    )


def _open(
    address: str, collection: str, options: CollectionOptions, model_options: ModelOptions, *, trust: bool
) -> Index:
    """Open an existing collection; raise an error if it does not exist, so that a misspelled name is reported."""
    from st_connectors.errors import NotFound
    from st_connectors.index import Index

    creating = [f"--{field.name}" for field in fields(options) if getattr(options, field.name)]
    if creating:
        raise ValueError(f"{', '.join(creating)} describes a new collection; add --create")
    try:
        return Index.open(
            address, collection=collection, trust_model=trust, backend=model_options.backend, dtype=model_options.dtype
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


def _documents(
    inputs: Sequence[tuple[str, Format]], id_field: str, text_fields: Sequence[str], index: Index
) -> Iterator[object]:
    from st_connectors.ingest.sources import Reading

    reading = Reading(id_field, tuple(text_fields), index.schema.filterable)
    documents = chain.from_iterable(_read(source, form, reading) for source, form in inputs)
    return documents if index.text_key == "text" else map(_without_text, documents)


def _without_text(document: Document | DocumentError) -> Document | DocumentError:
    """Return a document without its text under the key "text", because the collection has another key for texts."""
    from st_connectors.ingest.documents import Document

    if not isinstance(document, Document):
        return document
    return replace(document, payload={key: value for key, value in document.payload.items() if key != "text"})


def _read(source: str, form: Format, reading: Reading) -> Read:
    from st_connectors.ingest.sources import read_path, read_stream

    if source == "-":
        return read_stream(sys.stdin.buffer, form, reading, "standard input")
    return read_path(Path(source), form, reading)
