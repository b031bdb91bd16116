"""``st-connectors migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli import ingest_options as shared
from st_connectors.cli.options import (
    FUSIONS,
    Address,
    AsJson,
    Backend,
    Collection,
    Dtype,
    parse_filterable,
    parse_fusion,
)
from st_connectors.cli.output import (
    confirm,
    exit_with_interrupted,
    one_line,
    print_error,
    print_json,
    print_line,
    progress_bar,
)
from st_connectors.cli.queries import read_judgements, read_queries
from st_connectors.cli.reading import InputDocuments
from st_connectors.cli.sources import find_sources, make_reading
from st_core.home import expand_home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from st_connectors.index import Index, Split
    from st_connectors.ingest.sources import Reading
    from st_connectors.migrating import Migrator

__all__ = ["migrate"]


def migrate(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Files, folders or patterns with the texts of records that have none in their payloads.",
        ),
    ] = None,
    *,
    address: Address,
    collection: Collection,
    dense: Annotated[str | None, typer.Option(metavar="MODEL", help="New dense model.")] = None,
    sparse: Annotated[str | None, typer.Option(metavar="MODEL", help="New sparse model.")] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="New metric of dense vectors: cosine, dot or euclidean.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(metavar="KIND", help="New quantization of dense vectors: none, int8 or binary.")
    ] = None,
    filterable: Annotated[
        list[str] | None,
        typer.Option(
            "--filterable",
            metavar="FIELD[:KIND]",
            help="Further filterable field, such as year:int. Repeat for several fields.",
        ),
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(metavar="METHOD", help=f"Fusion of the legs to record: {FUSIONS}.")
    ] = None,
    split: Annotated[
        bool | None,
        typer.Option(help="Split all documents into other windows, or into none (default: leave windows as they are)."),
    ] = None,
    split_tokens: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="Tokens per new window; implies --split.")
    ] = None,
    id_field: shared.IdField = None,
    text_field: shared.TextFields = None,
    maps: shared.Maps = None,
    form: shared.Format = None,
    delimiter: shared.Delimiter = None,
    quote: shared.Quote = None,
    encoding: shared.Encoding = None,
    max_document: shared.MaxDocument = None,
    sql: shared.Sql = None,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare by the queries of a file: JSON lines with id and text, or id TAB text (default: the first "
            "words of some texts).",
        ),
    ] = None,
    judgements: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Relevance judgements of the queries, in the format of TREC (qrels)."),
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only print what the migration will take.")] = False,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="Switch after the comparison, or end before it.")
    ] = True,
    back: Annotated[bool, typer.Option("--back", help="Undo the last migration.")] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Drop the collection before the last migration.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Records compared, encoded and written per batch.")] = 512,
    backend: Backend = "torch",
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Change the model of a collection, or settings that cannot be altered, while it is searched and written.

    The new vectors are computed from the texts in the payloads, into another collection beside the present one. For
    records without a text, it is read from the sources, which have the documents as they were ingested. The command
    first prints an estimate and asks for confirmation, unless --yes is set. It then fills the new collection,
    compares the searches of both, and asks again before it switches: from then on the name opens the new collection.
    An interrupted migration continues when the same command is run again.

    Programs that have the collection open search the previous one until they open it again; their writes then fail with
    an error that says so. --back undoes the migration, with what was written since. The previous collection stays until
    --drop-old. --backend and --dtype apply to the new models.

    Example: st-connectors migrate --in qdrant+edge:library --collection books --dense ./minilm --estimate

    Example: st-connectors migrate --in qdrant+edge:library --collection books --dense ./minilm --yes

    Example: st-connectors migrate --in qdrant+edge:library --collection books --split-tokens 128 --yes

    Example: st-connectors migrate --in qdrant+edge:library --collection books --back --yes
    """
    from st_connectors.index import Index
    from st_connectors.migrating import AlreadyMigratedError, Migrator

    if back and (drop_old or estimate):
        raise ValueError(f"--back excludes {'--drop-old' if drop_old else '--estimate'}; pass only one of them")
    changes: dict[str, Any] = {
        "dense": dense,
        "sparse": sparse,
        "metric": metric,
        "quantization": quantization,
        "filterable": parse_filterable(filterable or []) or None,
        "fusion": parse_fusion(fusion),
        "split": _split(split, split_tokens),
    }
    reading = make_reading(
        id_field,
        text_field,
        maps,
        delimiter=delimiter,
        quote=quote,
        encoding=encoding,
        max_document=max_document,
    )
    changes["documents"] = _documents(sources or [], form, sql, reading)
    if (back or drop_old) and any(value is not None for value in changes.values()):
        raise ValueError("--back and --drop-old take no sources, models and settings; remove these")
    texts = None if queries is None else {query.id: query.text for query in read_queries(queries)}
    if judgements is not None and texts is None:
        raise ValueError("--judgements needs --queries, the queries that it judges")
    gains = None if judgements is None else read_judgements(judgements)
    with Index.open(address, collection=collection) as index:
        if drop_old:
            _drop_old(index, yes=yes, as_json=as_json)
            return
        try:
            opened = Migrator.back(index) if back else _start(index, changes, backend, dtype)
        except AlreadyMigratedError as error:  # by the same command, which was killed after the switch
            current = {"collection": index.collection, "current": index.schema.collection}
            _print_result(current, as_json=as_json, line=str(error))
            return
        with opened as migrator:
            new = migrator.target.schema.collection
            result: dict[str, Any] = {} if back else _estimate(migrator, as_json=as_json)
            if not estimate:
                confirm(f"go back to {new!r}" if back else f"encode {collection!r} into {new!r}", yes=yes)
                result |= _fill(migrator, index, batch, as_json=as_json)
                result |= {} if back else _compare(migrator, texts, gains, as_json=as_json)
            if estimate or not switch:
                _print_result(result, as_json=as_json)
                return
            if not back:
                confirm(f"switch {collection!r} to {new!r}", yes=yes)
            undo = "the same migration undoes this" if back else "--back undoes this"
            _switch(migrator, index, result, batch, undo, as_json=as_json)


def _split(split: bool | None, tokens: int | None) -> Split | bool | None:
    """Return how to split documents: a Split, False for not at all, and None if windows stay as they are."""
    from st_connectors.index import Split

    if split is False and tokens is not None:
        raise ValueError("--split-tokens and --no-split exclude each other; pass only one of them")
    return split if tokens is None else Split(tokens)


def _documents(
    sources: Sequence[str], form: str | None, sql: tuple[str, str] | None, reading: Reading
) -> InputDocuments | None:
    """Return the documents of the sources; None without sources."""
    if not sources and sql is None:
        return None
    inputs = find_sources([expand_home(source) for source in sources], form, sql)
    if any(each.path is None and each.query is None for each in inputs):
        raise ValueError("standard input cannot be read, because the sources are read several times: pass a file")
    return InputDocuments(inputs, reading, again="run the same command again")


def _start(index: Index, changes: dict[str, Any], backend: str, dtype: str | None) -> Migrator:
    from st_connectors.migrating import Migrator

    return Migrator.start(index, **changes, backend=backend, dtype=dtype)


def _estimate(migrator: Migrator, *, as_json: bool) -> dict[str, Any]:
    estimate = migrator.estimate()
    if not as_json:
        print_line(str(estimate))
    return {"estimate": estimate.to_json()}


def _fill(migrator: Migrator, index: Index, batch: int, *, as_json: bool) -> dict[str, Any]:
    """Bring the other collection up to date."""
    from st_connectors.ingest import IngestInterrupted

    total = index.count()
    try:
        with progress_bar(f"migrating {index.collection}", lambda: total) as progress:
            report = migrator.fill(batch=batch, progress=progress)
    except IngestInterrupted as error:
        hint = "run the same migration again to continue it"
        exit_with_interrupted(error.report, as_json=as_json, total=total, hint=hint)
    if not as_json:
        print_line(f"wrote {report.confirmed:,} records to {migrator.target.schema.collection!r}")
    return {"written": report.confirmed}


def _compare(
    migrator: Migrator,
    queries: dict[str, str] | None,
    judgements: dict[str, dict[str, float]] | None,
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Compare the searches of both collections, unless they are empty or the present one lacks its model."""
    from st_connectors.errors import SchemaMismatch

    if not migrator.target.count():
        return {"comparison": None}
    try:
        comparison = migrator.compare(queries, judgements)
    except SchemaMismatch as error:
        print_error(f"st-connectors: searches are not compared: {one_line(error)}")
        return {"comparison": None}
    if not as_json:
        print_line(str(comparison))
    return {"comparison": comparison.to_json()}


def _switch(migrator: Migrator, index: Index, result: dict[str, Any], batch: int, undo: str, *, as_json: bool) -> None:
    migrator.switch(batch=batch)
    before, after = index.schema.collection, migrator.target.schema.collection
    _print_result(
        {"collection": index.collection, "previous": before, "current": after, **result},
        as_json=as_json,
        line=f"{index.collection!r} now opens {after!r}; open it again in other programs. {before!r} stays until "
        f"--drop-old, and {undo}",
    )


def _drop_old(index: Index, *, yes: bool, as_json: bool) -> None:
    from st_connectors.migrating import drop_old

    confirm(f"drop the collection before the last migration of {index.collection!r}", yes=yes)
    name = drop_old(index)
    _print_result({"collection": index.collection, "dropped": name}, as_json=as_json, line=f"dropped {name!r}")


def _print_result(result: dict[str, Any], *, as_json: bool, line: str = "") -> None:
    if as_json:
        print_json(result)
    elif line:
        print_line(line)
