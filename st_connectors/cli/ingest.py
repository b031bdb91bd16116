"""``st-connectors ingest``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.options import (
    Address,
    AsJson,
    Backend,
    Collection,
    CollectionDtype,
    DenseModel,
    Filterable,
    FusionMethod,
    Making,
    RerankerModel,
    SparseModel,
    TextLeg,
    TrustModel,
    parse_filterable,
    parse_fusion,
)
from st_connectors.cli.output import complain, finish, print_json, progress_of, stop

if TYPE_CHECKING:
    from st_connectors.index import Index, Split
    from st_connectors.ingest.sources import Format, Read, Reading
    from st_connectors.models import Running

__all__ = ["ingest"]

TextFields = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="The column or key of the text; several are joined.")
]
Bulk = Annotated[
    bool,
    typer.Option("--bulk", help="Set the store for loading until the end, and say so where there is nothing to set."),
]


def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files, folders, or - for standard input.")],
    *,
    address: Address,
    collection: Collection,
    create: Annotated[bool, typer.Option("--create", help="Make the collection if it is not there.")] = False,
    dense: DenseModel = None,
    sparse: SparseModel = None,
    reranker: RerankerModel = None,
    text: TextLeg = False,
    filterable: Filterable = None,
    fusion: FusionMethod = None,
    backend: Backend = "torch",
    dtype: CollectionDtype = None,
    trust_model: TrustModel = False,
    id_field: Annotated[str, typer.Option(metavar="NAME", help="The column or key of the id.")] = "id",
    text_field: TextFields = None,
    form: Annotated[
        str | None, typer.Option("--format", help="jsonl, csv, parquet or text; by the file's name if not given.")
    ] = None,
    split: Annotated[
        bool | None, typer.Option(help="Split long texts into windows; on for text files and with --split-tokens.")
    ] = None,
    split_tokens: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="Tokens of a window; 256, or what the model takes.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Documents encoded and written together.")] = 512,
    bulk: Bulk = False,
    as_json: AsJson = False,
) -> None:
    """Encode documents and put them into a collection; records of the same id are replaced.

    JSONL, CSV and Parquet give an id and a text per row and the rest as payload; folders of text or Markdown give a document per file.
    Status 1 where records were refused; the others are in.

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --filterable year:int

    Example: st-connectors ingest books.jsonl --in qdrant+edge:library --collection books --create --dense ./minilm-int8 --backend openvino --dtype int8
    """
    from st_connectors.ingest import IngestFailed, IngestInterrupted
    from st_connectors.models import Running
    from st_connectors.registry import bulk_loading

    chosen = [(source, _format(source, form)) for source in sources]
    windows = _windows(split, split_tokens, [form for _, form in chosen])
    making = Making(dense, sparse, reranker, text, tuple(filterable or ()), fusion)
    running = Running(backend, dtype)
    index = (_create if create else _open)(address, collection, making, running, trust=trust_model)
    if bulk and not index.store.capabilities.bulk_loading:
        complain(f"st-connectors: --bulk changes nothing: {address.partition(':')[0]} has no settings for loading")
    with index, progress_of(f"ingesting into {collection}") as progress:
        documents = _documents(chosen, id_field, text_field or ["text"], index)
        try:
            with bulk_loading(address, collection) if bulk else nullcontext():
                report = index.ingest(documents, split=windows, batch=batch, progress=progress)
        except IngestInterrupted as error:
            stop(error.report, as_json=as_json)
        except IngestFailed as error:
            if as_json:
                print_json(error.report.to_json())
            raise
    if not (index.store.capabilities.persistent or as_json):
        complain(f"st-connectors: {address} keeps nothing: what was ingested is gone when this command ends")
    finish(report, as_json=as_json)


def _format(source: str, form: str | None) -> Format:
    """The format of a source, which must be there."""
    from st_connectors.ingest.sources import Format, format_of

    if form is not None and form not in {known.value for known in Format}:
        raise ValueError(f"--format {form!r}: one of {', '.join(Format)}")
    if source == "-":
        return Format(form) if form else Format.JSONL
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source}: no such file or folder")
    return Format(form) if form else format_of(path)


def _windows(split: bool | None, tokens: int | None, forms: Sequence[str]) -> Split | None:
    """How long texts are split: where that is asked for, by the size of windows too, and else where files of text are among the sources."""
    from st_connectors.index import Split

    if split is False and tokens is not None:
        raise ValueError(
            "--split-tokens says how texts are split, and --no-split that they are not: leave out one of them"
        )
    wanted = split if split is not None else tokens is not None or "text" in forms
    return Split(tokens=tokens) if wanted else None


def _create(address: str, collection: str, making: Making, running: Running, *, trust: bool) -> Index:
    from st_connectors.index import Index

    if trust:
        raise ValueError("--trust-model is about a collection that is there: leave out --create")

    return Index.create(
        address,
        collection=collection,
        dense=making.dense_model,
        sparse=making.sparse_model,
        reranker=making.reranker,
        text=making.text,
        filterable=parse_filterable(making.filterable),
        fusion=parse_fusion(making.fusion),
        backend=running.backend,
        dtype=running.dtype,
    )


def _open(address: str, collection: str, making: Making, running: Running, *, trust: bool) -> Index:
    """Open what is there; without --create nothing is made, so that a misspelt name is an error."""
    from st_connectors.errors import NotFound
    from st_connectors.index import Index

    given = [f"--{field.name}" for field in fields(making) if getattr(making, field.name)]
    if given:
        raise ValueError(f"{', '.join(given)} says how a collection is made: add --create")
    try:
        return Index.open(
            address, collection=collection, trust_model=trust, backend=running.backend, dtype=running.dtype
        )
    except NotFound as error:
        message = f"{error.message}; to make it, add --create"
        raise NotFound(message, store=error.store, operation=error.operation) from error


def _documents(
    chosen: Sequence[tuple[str, Format]], id_field: str, text_fields: Sequence[str], index: Index
) -> Iterator[object]:
    from st_connectors.ingest.sources import Reading

    reading = Reading(id_field, tuple(text_fields), index.schema.filterable)
    return chain.from_iterable(_read(source, form, reading) for source, form in chosen)


def _read(source: str, form: Format, reading: Reading) -> Read:
    from st_connectors.ingest.sources import read_path, read_stream

    if source == "-":
        return read_stream(sys.stdin.buffer, form, reading, "standard input")
    return read_path(Path(source), form, reading)
