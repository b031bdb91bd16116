"""``st-connectors delete``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.opening import open_collection
from st_connectors.cli.options import Address, Adopt, AdoptedFilterable, AsJson, Collection, Where
from st_connectors.cli.output import PARTIAL, SUCCESS, confirm, print_error, print_json, print_line

if TYPE_CHECKING:
    from st_connectors.deleting import Selection
    from st_connectors.store import Store

__all__ = ["delete"]

MAX_SHOWN_IDS = 5


def delete(
    *,
    address: Address,
    collection: Collection,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of the documents.")] = None,
    where: Where = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Read ids from a file, one per line; - reads stdin.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    adopt: Adopt = None,
    filterable: AdoptedFilterable = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents by id or by filter.

    Shows how many documents would be deleted, and asks for confirmation unless --yes is set. A split document is
    deleted with all its windows. The exit status is 1 if some of the ids do not exist; all other documents are deleted.

    Example: st-connectors delete shutil.copytree --in qdrant+edge:demo-index --collection python-docs --yes

    Example: st-connectors delete --where 'kind == "class"' --in qdrant+edge:demo-index --collection python-docs
    """
    from st_connectors.deleting import delete_selection

    if sum((bool(ids), where is not None, source is not None)) != 1:
        raise ValueError("pass the ids of documents, a filter with --where, or a file of ids with --from")
    wanted = ids if source is None else _read_ids(source)
    store = open_collection(address, collection, adopt, filterable or ())
    try:
        selection = _select(store, wanted, where)
        if selection.documents:
            confirm(f"delete {_what(selection)} from {collection!r}", yes=yes)
            delete_selection(store, selection)
    finally:
        store.close()
    if as_json:
        print_json(
            {
                "collection": collection,
                "deleted": len(selection.documents),
                "records": len(selection.records),
                "missing": list(selection.missing),
            }
        )
    else:
        print_line(f"deleted {_what(selection)} from {collection!r}")
    _print_missing(selection, collection)
    raise typer.Exit(PARTIAL if selection.missing else SUCCESS)


def _read_ids(source: str) -> list[str]:
    """Return the lines of a file that are not blank, unchanged; raise ValueError if there are none.

    Only line ends separate ids, which may contain other separators such as U+2028, and spaces at their ends.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--from {source}: cannot read the ids: {error}") from error
    ids = [line for line in text.split("\n") if line.strip()]
    if not ids:
        raise ValueError(f"--from {source}: expected one id per line, and there is none")
    return ids


def _select(store: Store, ids: list[str] | None, where: str | None) -> Selection:
    from st_connectors.deleting import select_by_filter, select_by_ids
    from st_connectors.where import parse_where

    return select_by_ids(store, ids or []) if where is None else select_by_filter(store, parse_where(where))


def _what(selection: Selection) -> str:
    """Return the number of documents, and of records if there are more."""
    documents, records = len(selection.documents), len(selection.records)
    text = f"{documents:,} document{'s' * (documents != 1)}"
    return text if records == documents else f"{text} ({records:,} records)"


def _print_missing(selection: Selection, collection: str) -> None:
    for identifier in selection.missing[:MAX_SHOWN_IDS]:
        print_error(f"no record {identifier!r} in {collection!r}")
    if len(selection.missing) > MAX_SHOWN_IDS:
        print_error(f"and {len(selection.missing) - MAX_SHOWN_IDS:,} more ids do not exist")
