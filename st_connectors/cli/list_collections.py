"""``st-connectors list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from st_connectors.cli.cards import aligned
from st_connectors.cli.options import Address, AsJson
from st_connectors.cli.output import PARTIAL, SUCCESS, one_line, print_error, print_json, print_line

if TYPE_CHECKING:
    from st_connectors.schema import Schema

__all__ = ["list_collections"]


def list_collections(address: Address, as_json: AsJson = False) -> None:
    """List the collections at an address, with their numbers of records and their models.

    Only collections that st-connectors created are listed. The exit status is 1 if one of them cannot be opened.

    Example: st-connectors list --in qdrant+edge:demo-index
    """
    from st_connectors.registry import collections

    rows = [_describe(address, name) for name in collections(address)]
    if as_json:
        print_json(rows)
    elif not rows:
        print_line(f"no collections at {address}")
    else:
        opened = [row for row in rows if "error" not in row]
        for line in aligned([("collection", "records", "models"), *map(_cells, opened)]) if opened else ():
            print_line(line)
    failed = [row for row in rows if "error" in row]
    for row in failed:
        print_error(f"st-connectors: {row['collection']!r} cannot be opened: {row['error']}")
    raise typer.Exit(PARTIAL if failed else SUCCESS)


def _describe(address: str, name: str) -> dict[str, Any]:
    """Return the number of records and the models of a collection, or the reason why it cannot be opened."""
    from st_connectors.errors import StoreError
    from st_connectors.registry import open_store

    try:
        store = open_store(address, name)
        try:
            return {"collection": name, "count": store.count(), "models": _model_names(store.schema)}
        finally:
            store.close()
    except StoreError as error:
        return {"collection": name, "error": one_line(error)}


def _model_names(schema: Schema) -> dict[str, str | None]:
    """Map each field, and the reranker if there is one, to the name of its model; text fields have none."""
    names: dict[str, str | None] = dict.fromkeys(schema.fields)
    return names | {name: ref.name for name, ref in schema.models.items()}


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    models = ", ".join(name if model is None else f"{name} {model}" for name, model in row["models"].items())
    return row["collection"], f"{row['count']:,}", models
