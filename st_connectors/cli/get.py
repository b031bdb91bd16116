"""``st-connectors get``."""

from __future__ import annotations

from typing import Annotated

import typer

from st_connectors.cli.options import Address, AsJson, Collection
from st_connectors.cli.output import DONE, REFUSED, complain, print_json, say

__all__ = ["get"]


def get(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The records' ids.")],
    address: Address,
    collection: Collection,
    as_json: AsJson = False,
) -> None:
    """Show records by their ids; status 1 where some are not there.

    Example: st-connectors get shutil.copytree --in qdrant+edge:demo-index --collection python-docs
    """
    from st_connectors.registry import open_store
    from st_connectors.store import Parts

    store = open_store(address, collection)
    try:
        records = store.get(ids, parts=Parts.PAYLOAD)
    finally:
        store.close()
    found = {record.id for record in records}
    if as_json:
        print_json([{"id": record.id, "payload": record.payload} for record in records])
    else:
        for record in records:
            say(record.id)
            for key, value in record.payload.items():
                lines = str(value).splitlines() or [""]
                say(f"  {key}: " + "\n      ".join(lines))
    absent = [identifier for identifier in ids if identifier not in found]
    for identifier in absent:
        complain(f"no record {identifier!r} in {collection!r}")
    raise typer.Exit(REFUSED if absent else DONE)
