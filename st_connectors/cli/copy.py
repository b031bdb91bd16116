"""``st-connectors copy``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

from st_connectors.cli.options import AsJson, quietly
from st_connectors.cli.output import finish, print_json, progress_of, stop

__all__ = ["copy"]


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", callback=quietly, help="The store to read.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The store to write.")],
    *,
    collection: Annotated[str, typer.Option("--collection", metavar="NAME", help="The collection to copy.")],
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="NAME", help="The collection to make or fill; the same name if not given."),
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Write only records that are missing or differ.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Records read and written together.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Copy a collection with its vectors from store to store; nothing is encoded again.

    The target is made where it is not there; where it is, it must have the same schema, and records of the same id are replaced. A copy that
    was stopped is finished by the same command; with --skip-existing what is there is compared first and not written again.

    Example: st-connectors copy qdrant+edge:demo-index qdrant://localhost:6333 --collection python-docs
    """
    from st_connectors import copying
    from st_connectors.ingest import IngestFailed, IngestInterrupted
    from st_connectors.registry import open_store

    name = into or collection
    if name == collection and copying.same_place(source, target):
        raise ValueError("source and target are the same collection: give another address, or another name by --into")
    with (
        closing(open_store(source, collection)) as reading,
        closing(open_store(target, name, replace(reading.schema, collection=name))) as writing,
        progress_of(f"copying {collection}") as progress,
    ):
        try:
            report = copying.copy(reading, writing, skip_existing=skip_existing, batch=batch, progress=progress)
        except IngestInterrupted as error:
            stop(error.report, as_json=as_json, again="the same copy with --skip-existing finishes it")
        except IngestFailed as error:
            if as_json:
                print_json(error.report.to_json())
            raise
    finish(report, as_json=as_json)
