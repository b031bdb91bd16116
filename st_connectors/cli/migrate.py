"""``st-connectors migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from st_connectors.cli.output import confirm, exit_with_interrupted, print_json, print_line, progress_bar
from st_connectors.cli.queries import read_judgements, read_queries

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.migrating import Migrator

__all__ = ["migrate"]


def migrate(
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

    The new vectors are computed from the texts in the payloads, into another collection beside the present one. The
    command first prints an estimate and asks for confirmation, unless --yes is set. It then fills the new collection,
    compares the searches of both, and asks again before it switches: from then on the name opens the new collection.
    An interrupted migration continues when the same command is run again.

    Programs that have the collection open search the previous one until they open it again; their writes then fail with
    an error that says so. --back undoes the migration, with what was written since. The previous collection stays until
    --drop-old. --backend and --dtype apply to the new models.

    Example: st-connectors migrate --in qdrant+edge:library --collection books --dense ./minilm --estimate

    Example: st-connectors migrate --in qdrant+edge:library --collection books --dense ./minilm --yes

    Example: st-connectors migrate --in qdrant+edge:library --collection books --back --yes
    """
    from st_connectors.index import Index
    from st_connectors.migrating import Migrator

    if back and (drop_old or estimate):
        raise ValueError(f"--back excludes {'--drop-old' if drop_old else '--estimate'}; pass only one of them")
    changes: dict[str, Any] = {
        "dense": dense,
        "sparse": sparse,
        "metric": metric,
        "quantization": quantization,
        "filterable": parse_filterable(filterable or []) or None,
        "fusion": parse_fusion(fusion),
    }
    if (back or drop_old) and any(value is not None for value in changes.values()):
        raise ValueError("--back and --drop-old take no models and settings; remove these")
    texts = None if queries is None else {query.id: query.text for query in read_queries(queries)}
    if judgements is not None and texts is None:
        raise ValueError("--judgements needs --queries, the queries that it judges")
    gains = None if judgements is None else read_judgements(judgements)
    with Index.open(address, collection=collection) as index:
        if drop_old:
            _drop_old(index, yes=yes, as_json=as_json)
            return
        with Migrator.back(index) if back else _start(index, changes, backend, dtype) as migrator:
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
            _switch(migrator, index, result, batch, as_json=as_json)


def _start(index: Index, changes: dict[str, Any], backend: str, dtype: str | None) -> Migrator:
    from st_connectors.migrating import Migrator

    return Migrator.start(index, **changes, backend=backend, dtype=dtype)


def _estimate(migrator: Migrator, *, as_json: bool) -> dict[str, Any]:
    found = migrator.estimate()
    if not as_json:
        print_line(str(found))
    return {"estimate": found.to_json()}


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
    comparison = migrator.compare(queries, judgements)
    if not as_json:
        print_line(str(comparison))
    return {"comparison": comparison.to_json()}


def _switch(migrator: Migrator, index: Index, result: dict[str, Any], batch: int, *, as_json: bool) -> None:
    migrator.switch(batch=batch)
    before, after = index.schema.collection, migrator.target.schema.collection
    _print_result(
        {"collection": index.collection, "previous": before, "current": after, **result},
        as_json=as_json,
        line=f"{index.collection!r} now opens {after!r}; open it again in other programs. {before!r} stays until "
        "--drop-old, and --back undoes this",
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
