"""What commands print: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from st_connectors.ingest import IngestReport, Progress
    from st_connectors.search import SearchHit, SearchResult

__all__ = [
    "CUT_OFF",
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "REFUSED",
    "WRONG_USE",
    "complain",
    "finish",
    "one_line",
    "print_json",
    "print_result",
    "progress_of",
    "say",
    "steps_of",
    "stop",
    "visible",
]

DONE, REFUSED, WRONG_USE, FAILED, INTERRUPTED, CUT_OFF = 0, 1, 2, 3, 130, 141
"""The exit statuses."""

SHOWN_REFUSALS = 5

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def say(text: str = "") -> None:
    """Print a line of the result."""
    typer.echo(visible(text))


def complain(text: str) -> None:
    """Print a line about the run, on standard error."""
    typer.echo(visible(text), err=True)


def visible(text: str) -> str:
    r"""The text with control characters but tab and newline, and what UTF-8 cannot write, as ``\u001b``: what a file holds must not steer a terminal.

    JSON stays the same value, for it has such characters in strings only.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    say(json.dumps(value, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else dict(value)


def finish(report: IngestReport, *, as_json: bool) -> NoReturn:
    """Print what became of an ingest, with the first of the refusals on standard error, and leave with its status."""
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    raise typer.Exit(REFUSED if report.refused_total else DONE)


def stop(report: IngestReport, *, as_json: bool, again: str = "ingesting the same again is safe") -> NoReturn:
    """Say what was confirmed before Ctrl-C and what ``again`` does, and leave."""
    if as_json:
        print_json(report.to_json())
    complain(f"st-connectors: interrupted; what is confirmed stays: {report}; {again}")
    raise typer.Exit(INTERRUPTED)


def _print_report(report: IngestReport) -> None:
    for refusal in report.refused[:SHOWN_REFUSALS]:
        name = f" {refusal.id!r}" if refusal.id else ""
        complain(f"refused: record {refusal.position + 1}{name}: {refusal.reason}")
    if report.refused_total > SHOWN_REFUSALS:
        complain(f"refused: {report.refused_total - SHOWN_REFUSALS:,} more; --json lists them")
    say(str(report))


def print_result(result: SearchResult, *, text_key: str = "text") -> None:
    """Print hits for people: rank, score, id and the beginning of the text."""
    if not result.hits:
        say("nothing found")
    width = _width()
    for rank, hit in enumerate(result.hits, 1):
        say(f"{rank:3}. {hit.score:8.4f}  {hit.id}")
        text = " ".join(str(hit.payload.get(text_key, "")).split())
        if text:
            say("     " + (text if len(text) <= width - 6 else text[: width - 7] + "…"))
        for line in _explanation(hit):
            say("     " + line)


def _explanation(hit: SearchHit) -> Iterator[str]:
    """How a hit came about, where that was asked: only explained hits have terms or were reranked."""
    if hit.retrieved is not None:
        yield f"before reranking {hit.retrieved:.4f}"
    if hit.terms:
        yield ", ".join(f"{leg.field} #{leg.rank} {leg.score:.4f}" for leg in hit.legs)
        yield "matched " + ", ".join(f"{term.term} {term.weight:.2f}" for term in hit.terms)


def _width() -> int:
    try:
        return max(40, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        return 100


@contextmanager
def steps_of(what: str) -> Iterator[Callable[[str], None]]:
    """A function that shows what is being done while standard error is a terminal, and does nothing else."""
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as status:
        yield lambda step: status.update(f"{what}: {step}")


@contextmanager
def progress_of(what: str) -> Iterator[Progress | None]:
    """A progress callback that draws a line while standard error is a terminal, else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)

        def draw(report: IngestReport) -> None:
            rate = report.confirmed / report.seconds if report.seconds else 0.0
            refused = f", {report.refused_total:,} refused" if report.refused_total else ""
            bar.update(task, description=f"{what}: {report.confirmed:,} confirmed{refused}, {rate:,.0f}/s")

        yield draw
