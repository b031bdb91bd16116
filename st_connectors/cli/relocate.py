"""``st-connectors relocate``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

from st_connectors.cli.options import Address, AsJson, Collection, CollectionBackend, CollectionDtype
from st_connectors.cli.output import print_json, print_line

__all__ = ["relocate"]


def relocate(
    *,
    address: Address,
    collection: Collection,
    dense: Annotated[
        str | None, typer.Option("--dense", metavar="MODEL", help="New place of the dense model: a folder or a name.")
    ] = None,
    sparse: Annotated[
        str | None, typer.Option("--sparse", metavar="MODEL", help="New place of the sparse model: a folder or a name.")
    ] = None,
    reranker: Annotated[
        str | None, typer.Option("--reranker", metavar="MODEL", help="New place of the reranker: a folder or a name.")
    ] = None,
    backend: CollectionBackend = None,
    dtype: CollectionDtype = None,
    as_json: AsJson = False,
) -> None:
    """Record the new place of a model that has moved.

    The model is loaded from there and compared with the recorded fingerprint; another model is refused. Records stay
    as they are. To use a moved model once, without recording it, pass --dense or --sparse to search or ingest.

    Example: st-connectors relocate --in qdrant+edge:library --collection books --dense ./moved/minilm
    """
    from st_connectors.models import ModelOptions
    from st_connectors.registry import open_store
    from st_connectors.schemas import relocated_models

    places = {"dense": dense, "sparse": sparse, "reranker": reranker}
    with closing(open_store(address, collection)) as store:
        before = store.schema.models
        moved = relocated_models(store.schema, places, ModelOptions(backend, dtype))
        store.alter(replace(store.schema, models={**before, **moved}))
    changes = {name: {"from": before[name].name, "to": ref.name} for name, ref in moved.items()}
    if as_json:
        print_json({"collection": collection, "models": changes})
        return
    for name, change in changes.items():
        print_line(f"{name}: {change['from']} is now recorded as {change['to']}")
