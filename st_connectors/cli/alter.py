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
from st_connectors.cli.output import print_json, print_line

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
    backend: Backend = "torch",
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Change a collection in place, without encoding its texts again.

    Stop other writers first. A change that the store cannot make in place is refused, and nothing changes; such a
    collection can be copied with the change (st-connectors copy). --backend and --dtype apply to --reranker.

    Example: st-connectors alter --in qdrant+edge:library --collection books --filterable pages:int --fusion rrf:60:1,2
    """
    from st_connectors.models import ModelOptions
    from st_connectors.registry import open_store
    from st_connectors.schemas import altered_schema, lazy_reranker

    if not (filterable or reranker or fusion or quantization):
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
        store.alter(after)
    changed = _changed(before, after)
    if as_json:
        print_json({"collection": collection, "changed": changed, "schema": after.to_json()})
    else:
        print_line(
            f"changed the {' and '.join(changed)} of {collection!r}"
            if changed
            else f"nothing to change in {collection!r}"
        )


def _changed(before: Schema, after: Schema) -> list[str]:
    """Return what has changed, in the words of the options."""
    from st_connectors.schema import alterations

    names = {"filterable": "filterable fields", "models": "reranker"}
    return sorted(names.get(each, each) for each in alterations(before, after))
