"""``st-connectors copy``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.options import AsJson, quietly
from st_connectors.cli.output import finish, progress_of, stop

if TYPE_CHECKING:
    from st_connectors.ingest import IngestReport, Progress
    from st_connectors.store import Record, Store

__all__ = ["copy"]

BATCH = 1000


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", callback=quietly, help="The store to read.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The store to write.")],
    collection: Annotated[str, typer.Option("--collection", metavar="NAME", help="The collection to copy.")],
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="NAME", help="The collection to make or fill; the same name if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a collection with its vectors from store to store; nothing is encoded again.

    The target is made where it is not there; where it is, it must have the same schema, and records of the same id are replaced.

    Example: st-connectors copy qdrant+edge:demo-index qdrant://localhost:6333 --collection python-docs
    """
    from st_connectors.ingest import IngestInterrupted
    from st_connectors.registry import open_store, parse_address

    name = into or collection
    if parse_address(source) == parse_address(target) and name == collection:
        raise ValueError("source and target are the same collection: give another address, or another name by --into")
    reading = open_store(source, collection)
    try:
        writing = open_store(target, name, replace(reading.schema, collection=name))
        try:
            writing.create()
            with progress_of(f"copying {collection}") as progress:
                report = _copy(reading, writing, progress)
        except IngestInterrupted as error:
            stop(error.report, as_json=as_json)
        finally:
            writing.close()
    finally:
        reading.close()
    finish(report, as_json=as_json)


def _copy(reading: Store, writing: Store, progress: Progress | None) -> IngestReport:
    """Move records a batch at a time and count what the target confirmed; raises IngestInterrupted or IngestFailed with the count."""
    from st_connectors.ingest import IngestFailed, IngestInterrupted, IngestReport, Refusal

    began = time.perf_counter()
    report = IngestReport()
    try:
        for batch in _batches(reading.scan(batch=BATCH)):
            rejected = writing.upsert(batch)
            refusals = [Refusal(report.read + item.position, item.id, item.error.message) for item in rejected]
            confirmed = len(batch) - len(rejected)
            report = replace(
                report,
                read=report.read + len(batch),
                confirmed=report.confirmed + confirmed,
                records=report.records + confirmed,
                refused=(*report.refused, *refusals)[:1000],
                refused_total=report.refused_total + len(rejected),
                seconds=time.perf_counter() - began,
            )
            if progress is not None:
                progress(report)
        writing.refresh()
    except KeyboardInterrupt as error:
        raise IngestInterrupted(report) from error
    except Exception as error:
        raise IngestFailed(report, error) from error
    return report


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, BATCH)):
        yield batch
