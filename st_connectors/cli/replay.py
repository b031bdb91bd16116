"""``st-connectors replay``."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import PARTIAL, SUCCESS, print_error, print_json, print_line, progress_bar
from st_connectors.cli.sources import make_reading
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.ingest.dead_letters import Target
    from st_connectors.replaying import Repair

__all__ = ["replay"]

MAX_SHOWN = 5


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Dead-letter file, as written by ingest.")],
    *,
    repair: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py",
            help="Python file with a function repair(document), which returns the repaired document, or None to leave "
            "it. A line that could not be read is passed as a string.",
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option("--in", metavar="URL", help="Address of the store (default: as in the letters).")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the collection (default: as in the letters).")
    ] = None,
    id_field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column or key of the document id, as for ingest (default: id).")
    ] = None,
    text_field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column or key of the text, as for ingest (default: text)."),
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=TEMPLATE", help="Field composed of columns, as for ingest."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Documents encoded and written per batch.")] = 512,
    as_json: AsJson = False,
) -> None:
    """Ingest refused documents again; those that succeed leave the file.

    A document replaces a stored record with the same id, also if that is newer. Documents that are refused again remain
    in the file with the new reason, and the exit status is 1.

    Example: st-connectors replay refused.jsonl --repair repair.py

    Example: st-connectors replay refused.jsonl --in qdrant+edge:library --collection books
    """
    from st_connectors.replaying import replay as replay_file

    path = Path(expand_home(file))
    function = None if repair is None else _load(Path(expand_home(repair)))
    reading = make_reading(id_field, text_field, maps, delimiter=None, quote=None, encoding=None)

    def open_index(target: Target) -> Index:
        from st_connectors.index import Index

        place = replace(target, address=address or target.address, collection=collection or target.collection)
        if not place.address:
            raise ValueError(f"{path} does not name the address of the store: pass --in URL")
        return Index.open(place.address, collection=place.collection)

    with progress_bar(f"replaying {path}") as progress:
        report = replay_file(path, open_index, repair=function, reading=reading, batch=batch, progress=progress)
    left = _count(path)
    if as_json:
        print_json(report.to_json() | {"remaining": left})
    else:
        for refusal in report.refused[:MAX_SHOWN]:
            print_error(f"refused: {refusal}")
        if report.refused_total > MAX_SHOWN:
            print_error(f"refused: {report.refused_total - MAX_SHOWN:,} more")
        print_line(f"{report.confirmed:,} documents confirmed in {report.seconds:.1f} s, {left:,} remain in {path}")
    raise typer.Exit(PARTIAL if left else SUCCESS)


def _load(path: Path) -> Repair:
    """Return the function ``repair`` of a Python file; raise ValueError if it has none or cannot be run."""
    if not path.is_file():
        raise ValueError(f"--repair {path}: no such file")
    try:
        function = runpy.run_path(str(path)).get("repair")
    except Exception as error:
        raise ValueError(f"--repair {path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not callable(function):
        raise ValueError(f"--repair {path} has no function repair(document)")  # noqa: TRY004  # a user's mistake
    repair: Repair = function
    return repair


def _count(path: Path) -> int:
    from st_connectors.ingest.dead_letters import read_letters

    return sum(1 for _ in read_letters(path))
