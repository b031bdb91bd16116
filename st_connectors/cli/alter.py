"""``st-connectors alter``."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from st_connectors.schema import Schema

__all__ = ["alter"]


def alter(
    *,
    address: Address,
    collection: Collection,
    filterable: Annotated[
        list[str] | None,
        typer.Option(
            "--filterable",
            metavar="FIELD[:KIND]",
            help="Further filterable field, such as year:int, for stored records too. KIND is keyword, int, float, "
            "bool or date (default: keyword). Repeat for several fields.",
        ),
    ] = None,
    reranker: Annotated[str | None, typer.Option(metavar="MODEL", help="Reranker to record.")] = None,
    fusion: Annotated[
        str | None, typer.Option(metavar="METHOD", help=f"Fusion of the legs to record: {FUSIONS}.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(metavar="KIND", help="Quantization of dense vectors: none, int8 or binary.")
    ] = None,
    by_copy: Annotated[
        bool,
        typer.Option(
            "--by-copy",
            help="Change by copy, also what could change in place. Options of the address apply to the copy.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation of a change by copy.")] = False,
    backend: Backend = "torch",
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Change a collection without encoding its texts again: in place, or by a copy that takes its place.

    What the store cannot change in place, Elasticsearch and OpenSearch change by copy: the records are copied with
    their vectors into a new index, which then replaces the old one in one step. This asks for confirmation, unless
    --yes is set. Until then the collection can be searched, and refuses writes. An interrupted copy changes nothing;
    the same command starts over. Other stores refuse such a change (st-connectors copy makes a copy under another
    name).

    Stop other writers first, and open the collection again in other programs after a change by copy. --backend and
    --dtype apply to --reranker.

    Example: st-connectors alter --in qdrant+edge:library --collection books --filterable pages:int --fusion rrf:60:1,2

    Example: st-connectors alter --in "opensearch://localhost:9200?shards=3" --collection books --by-copy --yes
    """
    from st_connectors.altering import needs_copy
    from st_connectors.models import ModelOptions
    from st_connectors.registry import open_store
    from st_connectors.schemas import altered_schema, lazy_reranker

    if not (filterable or reranker or fusion or quantization or by_copy):
        raise ValueError("nothing to change: pass --filterable, --reranker, --fusion or --quantization")
    with closing(open_store(address, collection)) as store:
        before = store.schema
        after = altered_schema(
            before,
            filterable=parse_filterable(filterable or []),
            reranker=lazy_reranker(reranker, ModelOptions(backend, dtype)),
            fusion=parse_fusion(fusion),
            quantization=quantization,
        )
        is_copied = by_copy or needs_copy(before, after, store.capabilities)
        if not is_copied:
            store.alter(after)
        count = store.count() if is_copied else 0
    changed = _changed(before, after)
    if is_copied:
        _alter_by_copy(address, after, changed, count, yes=yes, as_json=as_json)
    elif as_json:
        print_json({"collection": collection, "changed": changed, "schema": after.to_json()})
    else:
        print_line(
            f"changed the {' and '.join(changed)} of {collection!r}"
            if changed
            else f"nothing to change in {collection!r}"
        )


def _alter_by_copy(address: str, after: Schema, changed: list[str], count: int, *, yes: bool, as_json: bool) -> None:
    """Ask for confirmation, change a collection by copy, and print what was done."""
    from st_connectors.altering import alter_by_copy
    from st_connectors.ingest import IngestInterrupted

    name = after.collection
    what = f"copy {count:,} records of {name!r} into a new index that takes its place"
    confirm(f"{what} (change of {', '.join(changed) or 'options of the store'})", yes=yes)
    try:
        with progress_bar(f"copying {name}", lambda: count) as progress:
            report = alter_by_copy(address, after, progress=progress)
    except IngestInterrupted as error:
        exit_with_interrupted(error.report, as_json=as_json, total=count, hint="nothing was changed")
    if as_json:
        print_json({"collection": name, "changed": changed, "copied": report.confirmed, "schema": after.to_json()})
    else:
        print_line(f"changed {name!r} by a copy of {report.confirmed:,} records")


def _changed(before: Schema, after: Schema) -> list[str]:
    """Return what has changed, in the words of the options."""
    from st_connectors.schema import alterations

    names = {"filterable": "filterable fields", "models": "reranker"}
    return sorted(names.get(each, each) for each in alterations(before, after))
