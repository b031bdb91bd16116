"""``st-connectors drop``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.options import Address, AsJson, Collection
from st_connectors.cli.output import confirm, print_json, print_line

if TYPE_CHECKING:
    from st_connectors.plugin import Description

__all__ = ["drop"]


def drop(
    address: Address,
    collection: Collection,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    with_aliases: Annotated[
        bool, typer.Option("--with-aliases", help="With --yes: also drop a collection that has aliases.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drop a collection with all its records.

    Shows what would be dropped, and asks for confirmation unless --yes is set. A collection is dropped only by its own
    name, not by an alias; its aliases are dropped with it.

    Example: st-connectors drop --in qdrant+edge:demo-index --collection python-docs --yes
    """
    from st_connectors.registry import check_own_name, describe_collection, open_store, parse_address

    store = open_store(address, collection)
    try:
        description = describe_collection(address, collection)
        name = collection if store.schema.migration is None else store.schema.collection
        check_own_name(name, description.name, store=parse_address(address).name)
        number = store.count()
        if yes and description.aliases and not with_aliases:
            raise ValueError(
                f"not dropped: {_what(collection, number, description)} would be dropped; "
                "add --with-aliases to confirm, or remove the aliases first"
            )
        confirm(f"drop {_what(collection, number, description)}", yes=yes)
        store.drop()
    finally:
        store.close()
    if as_json:
        print_json({"collection": collection, "dropped": number, "aliases": list(description.aliases)})
    else:
        print_line(f"dropped {_what(collection, number, description)}")


def _what(collection: str, number: int, description: Description) -> str:
    """Return what is dropped: a collection, its records and its aliases."""
    text = f"{collection!r} with {number:,} records"
    aliases = ", ".join(map(repr, description.aliases))
    return f"{text} and its alias{'es' * (len(description.aliases) > 1)} {aliases}" if aliases else text
