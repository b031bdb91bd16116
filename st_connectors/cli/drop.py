"""``st-connectors drop``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from st_connectors.cli.options import Address, AsJson, Collection
from st_connectors.cli.output import INTERRUPTED, print_error, print_json, print_line

__all__ = ["drop"]


def drop(
    address: Address,
    collection: Collection,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop a collection with all its records.

    Asks for confirmation unless --yes is set.

    Example: st-connectors drop --in qdrant+edge:demo-index --collection python-docs --yes
    """
    from st_connectors.registry import open_store

    store = open_store(address, collection)
    try:
        number = store.count()
        if not yes:
            if not sys.stdin.isatty():
                what = f"{collection!r} with {number:,} records"
                raise ValueError(f"cannot ask whether to drop {what}: standard input is not a terminal; add --yes")
            if not typer.confirm(f"Drop {collection!r} with {number:,} records?", err=True):
                print_error("not dropped")
                raise typer.Exit(INTERRUPTED)
        store.drop()
    finally:
        store.close()
    if as_json:
        print_json({"collection": collection, "dropped": number})
    else:
        print_line(f"dropped {collection!r} with {number:,} records")
