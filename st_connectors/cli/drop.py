"""``st-connectors drop``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from st_connectors.cli.options import Address, AsJson, Collection
from st_connectors.cli.output import INTERRUPTED, complain, print_json, say

__all__ = ["drop"]


def drop(
    address: Address,
    collection: Collection,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a collection with all its records; asks first.

    Example: st-connectors drop --in qdrant+edge:demo-index --collection python-docs --yes
    """
    from st_connectors.registry import open_store

    store = open_store(address, collection)
    try:
        number = store.count()
        if not yes:
            if not sys.stdin.isatty():
                raise ValueError(f"{collection!r} holds {number:,} records and nobody is there to ask: add --yes")
            if not typer.confirm(f"Remove {collection!r} with {number:,} records?", err=True):
                complain("left as it is")
                raise typer.Exit(INTERRUPTED)
        store.drop()
    finally:
        store.close()
    if as_json:
        print_json({"collection": collection, "dropped": number})
    else:
        say(f"removed {collection!r} with {number:,} records")
