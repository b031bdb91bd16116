"""``st-connectors get``."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.cards import record_card
from st_connectors.cli.opening import open_collection
from st_connectors.cli.options import Address, Adopt, AdoptedFilterable, AsJson, Collection, Where
from st_connectors.cli.output import PARTIAL, SUCCESS, print_error, print_json, print_line

if TYPE_CHECKING:
    from st_connectors.store import Record, Store

__all__ = ["get"]


def get(
    *,
    address: Address,
    collection: Collection,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of the records.")] = None,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="With --where: maximum number of records.")] = 20,
    adopt: Adopt = None,
    filterable: AdoptedFilterable = None,
    as_json: AsJson = False,
) -> None:
    """Show records by id, or those that match a filter.

    The exit status is 1 if some of the ids do not exist. Records that match a filter are shown in no particular order.

    Example: st-connectors get shutil.copytree --in qdrant+edge:demo-index --collection python-docs

    Example: st-connectors get --where 'kind == "class"' --limit 3 --in qdrant+edge:demo-index --collection python-docs
    """
    if bool(ids) == (where is not None):
        raise ValueError("pass the ids of records, or a filter with --where, and not both")
    store = open_collection(address, collection, adopt, filterable or ())
    try:
        records = _by_id(store, ids) if ids else _by_filter(store, where or "", limit)
    finally:
        store.close()
    if as_json:
        print_json([{"id": record.id, "payload": record.payload} for record in records])
    else:
        for record in records:
            print_line(record_card(record))
        if not records and not ids:
            print_line("no records")
    existing = {record.id for record in records}
    missing = [identifier for identifier in ids or () if identifier not in existing]
    for identifier in missing:
        print_error(f"no record {identifier!r} in {collection!r}")
    raise typer.Exit(PARTIAL if missing else SUCCESS)


def _by_id(store: Store, ids: list[str]) -> list[Record]:
    from st_connectors.store import Parts

    return store.get(ids, parts=Parts.PAYLOAD)


def _by_filter(store: Store, where: str, limit: int) -> list[Record]:
    from st_connectors.store import Parts
    from st_connectors.where import parse_where

    records = store.scan(where=parse_where(where), parts=Parts.PAYLOAD, batch=min(limit, 1000))
    return list(islice(records, limit))
