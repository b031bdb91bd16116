"""``st-connectors demo``."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import (
    PARTIAL,
    SUCCESS,
    print_error,
    print_json,
    print_line,
    progress_bar,
)
from st_connectors.cli.results import print_result

if TYPE_CHECKING:
    from st_connectors.demo.build import DemoIndex
    from st_connectors.search import SearchResult

__all__ = ["demo"]


def demo(as_json: AsJson = False) -> None:
    """Index the docstrings of Python's standard library and query them.

    Uses the built-in models and the embedded store; needs neither a network nor torch. Replaces the collection
    python-docs in qdrant+edge:demo-index.

    Example: st-connectors demo
    """
    from st_connectors.demo.build import ADDRESS, QUESTIONS, build_index
    from st_connectors.demo.docstrings import collect

    start = time.perf_counter()
    docstrings = collect()
    collect_seconds = time.perf_counter() - start
    if not as_json:
        python = platform.python_version()
        print_line(f"read {len(docstrings):,} docstrings of Python {python} in {collect_seconds:.1f} s")
    with progress_bar("indexing") as progress:
        built = build_index(ADDRESS, docstrings, progress=progress)
    for refusal in built.report.refused:
        print_error(f"refused: {refusal.id}: {refusal.reason}")
    with built.index as index:
        if not as_json:
            _print_ingest(built)
        results = [index.search(question, limit=3, highlight=True) for question in QUESTIONS]
    if as_json:
        print_json(
            {
                "collected_seconds": collect_seconds,
                "report": built.report.to_json(),
                "answers": [result.to_json() for result in results],
            }
        )
    else:
        _print_answers(results)
    raise typer.Exit(PARTIAL if built.report.refused_total else SUCCESS)


def _print_ingest(built: DemoIndex) -> None:
    from st_connectors.demo.build import ADDRESS, COLLECTION

    report = built.report
    place = f"{ADDRESS}, collection {COLLECTION}"
    replaced = " (replacing an earlier one)" if built.is_replacement else ""
    rate = report.confirmed / report.seconds
    print_line(f"encoded and stored {report.confirmed:,} in {report.seconds:.1f} s, {rate:,.0f} documents/s")
    print_line(f"  into {place}{replaced}\n")


def _print_answers(results: Sequence[SearchResult]) -> None:
    from st_connectors.demo.build import ADDRESS, COLLECTION, NEXT_QUESTION

    for result in results:
        print_line(f"“{result.query}”")
        print_result(result)
        print_line()
    print_line("Try your own question:")
    print_line(f'  {_program()} search "{NEXT_QUESTION}" --in {ADDRESS} --collection {COLLECTION}')


def _program() -> str:
    """Return the command to run this program again: its name if it is on the PATH, else the path of this call."""
    called_as = sys.argv[0]
    if shutil.which("st-connectors") is None and Path(called_as).name == "st-connectors":
        return called_as
    return "st-connectors"
