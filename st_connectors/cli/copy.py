"""``st-connectors copy``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

from st_connectors.cli.options import FUSIONS, AsJson, parse_filterable, parse_fusion, silence_retry_logging
from st_connectors.cli.output import exit_with_interrupted, exit_with_report, note_if_lost, print_json, progress_bar

__all__ = ["copy"]


def copy(
    source: Annotated[
        str, typer.Argument(metavar="FROM", callback=silence_retry_logging, help="Address of the store to read.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="Address of the store to write.")],
    *,
    collection: Annotated[str, typer.Option("--collection", metavar="NAME", help="Name of the collection to copy.")],
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="NAME", help="Name of the target collection (default: the same name)."),
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Write only records that are missing or different in the target.")
    ] = False,
    filterable: Annotated[
        list[str] | None,
        typer.Option(
            "--filterable",
            metavar="FIELD[:KIND]",
            help="Further filterable field of the target, such as year:int. Repeat for several fields.",
        ),
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(metavar="METHOD", help=f"Fusion of the legs of the target: {FUSIONS}.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(metavar="KIND", help="Quantization of the target's dense vectors: none, int8, binary.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Records read and written per batch.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Copy a collection with its vectors to another store.

    Nothing is encoded again. The target collection is created if it does not exist. An existing one must have the
    same schema; records with the same id are replaced. To finish an interrupted copy, run the same command again;
    --skip-existing compares records first and does not write those that are already there.

    --filterable, --fusion and --quantization give the target what a store cannot change in place (st-connectors alter).

    Example: st-connectors copy qdrant+edge:demo-index qdrant://localhost:6333 --collection python-docs

    Example: st-connectors copy milvus+lite:shelf milvus+lite:shelf --collection books --into books2 --filterable
    year:int
    """
    from st_connectors import copying
    from st_connectors.ingest import IngestFailed, IngestInterrupted
    from st_connectors.registry import open_store
    from st_connectors.schemas import altered_schema

    target_name = into or collection
    if target_name == collection and copying.same_place(source, target):
        raise ValueError("source and target are the same collection; use another address, or another name with --into")
    with (
        closing(open_store(source, collection)) as source_store,
        closing(
            open_store(
                target,
                target_name,
                altered_schema(
                    replace(source_store.schema, collection=target_name, migration=None),
                    filterable=parse_filterable(filterable or []),
                    fusion=parse_fusion(fusion),
                    quantization=quantization,
                ),
            )
        ) as target_store,
    ):
        total = source_store.count()
        try:
            with progress_bar(f"copying {collection}", lambda: total) as progress:
                report = copying.copy(
                    source_store, target_store, skip_existing=skip_existing, batch=batch, progress=progress
                )
        except IngestInterrupted as error:
            hint = "run the same copy with --skip-existing to finish it"
            exit_with_interrupted(error.report, as_json=as_json, total=total, hint=hint)
        except IngestFailed as error:
            if as_json:
                print_json(error.report.to_json())
            raise
    if not as_json:
        note_if_lost(target, target_store.capabilities)
    exit_with_report(report, as_json=as_json)
