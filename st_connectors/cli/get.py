"""``st-connectors get``."""

from __future__ import annotations

from typing import Annotated

import typer

from st_connectors.cli.options import Address, AsJson, Collection
from st_connectors.cli.output import PARTIAL, SUCCESS, print_error, print_json, print_line

__all__ = ["get"]


def get(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the records.")],
    address: Address,
    collection: Collection,
    as_json: AsJson = False,
) -> None:
    """Show records by id.

    The exit status is 1 if some of the records do not exist.

    Example: st-connectors get shutil.copytree --in qdrant+edge:demo-index --collection python-docs
    """
    from st_connectors.registry import open_store
    from st_connectors.store import Parts

    store = open_store(address, collection)
    try:
        records = store.get(ids, parts=Parts.PAYLOAD)
    finally:
        store.close()
    existing = {record.id for record in records}
    if as_json:
        print_json([{"id": record.id, "payload": record.payload} for record in records])
    else:
        for record in records:
            print_line(record.id)
            for key, value in record.payload.items():
                lines = str(value).splitlines() or [""]
                print_line(f"  {key}: " + "\n      ".join(lines))
    missing = [identifier for identifier in ids if identifier not in existing]
    for identifier in missing:
        print_error(f"no record {identifier!r} in {collection!r}")
    raise typer.Exit(PARTIAL if missing else SUCCESS)
