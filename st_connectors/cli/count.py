"""``st-connectors count``."""

from __future__ import annotations

from st_connectors.cli.opening import open_collection
from st_connectors.cli.options import Address, Adopt, AdoptedFilterable, AsJson, Collection, Where
from st_connectors.cli.output import print_json, print_line

__all__ = ["count"]


def count(
    *,
    address: Address,
    collection: Collection,
    where: Where = None,
    adopt: Adopt = None,
    filterable: AdoptedFilterable = None,
    as_json: AsJson = False,
) -> None:
    """Count the records of a collection, or those that match a filter.

    Example: st-connectors count --in qdrant+edge:demo-index --collection python-docs --where 'kind == "class"'
    """
    from st_connectors.where import parse_where

    record_filter = None if where is None else parse_where(where)
    store = open_collection(address, collection, adopt, filterable or ())
    try:
        number = store.count(record_filter)
    finally:
        store.close()
    if as_json:
        print_json({"collection": collection, "count": number})
    else:
        print_line(str(number))
