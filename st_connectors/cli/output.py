"""Print results to standard output, and progress and errors to standard error; define the exit statuses."""

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

__all__ = [
    "BROKEN_PIPE",
    "FAILURE",
    "INTERRUPTED",
    "PARTIAL",
    "SUCCESS",
    "USAGE_ERROR",
    "confirm",
    "escape_control_characters",
    "exit_with_interrupted",
    "exit_with_report",
    "one_line",
    "print_error",
    "print_json",
    "print_line",
    "progress_bar",
    "status_line",
    "terminal_width",
]

SUCCESS, PARTIAL, USAGE_ERROR, FAILURE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141
"""The exit statuses. ``PARTIAL``: some records were refused or do not exist."""

MAX_SHOWN_REFUSALS = 5

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def print_line(text: str = "") -> None:
    """Print a line of the result to standard output."""
    typer.echo(escape_control_characters(text))


def print_error(text: str) -> None:
    """Print a message to standard error."""
    typer.echo(escape_control_characters(text), err=True)


def escape_control_characters(text: str) -> str:
    r"""Write control characters other than tab and newline, and lone surrogates, as escapes such as ``\u001b``.

    Stored text must not control the terminal. The value of a JSON text does not change, because these characters occur
    only in its strings.
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def confirm(action: str, *, yes: bool) -> None:
    """Ask on standard error whether to perform an action, such as "delete 3 documents"; exit unless the answer is yes.

    Raises ValueError if there is no terminal to ask on. If ``yes`` is set, nothing is asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValueError(f"cannot ask whether to {action}: standard input is not a terminal; add --yes")
    if not typer.confirm(f"{action[0].upper()}{action[1:]}?", err=True):
        print_error("nothing was changed")
        raise typer.Exit(INTERRUPTED)


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, or its class name if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print_line(json.dumps(value, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else dict(value)


def exit_with_report(report: IngestReport, *, as_json: bool) -> NoReturn:
    """Print the report of an ingest, with its first refusals on standard error, and exit with its status."""
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    raise typer.Exit(PARTIAL if report.refused_total else SUCCESS)


def exit_with_interrupted(
    report: IngestReport, *, as_json: bool, hint: str = "the same ingest can be run again"
) -> NoReturn:
    """Report the documents confirmed before Ctrl-C and how to continue (``hint``), and exit."""
    if as_json:
        print_json(report.to_json())
    print_error(f"st-connectors: interrupted; confirmed documents stay stored: {report}; {hint}")
    raise typer.Exit(INTERRUPTED)


def _print_report(report: IngestReport) -> None:
    for refusal in report.refused[:MAX_SHOWN_REFUSALS]:
        print_error(f"refused: {refusal}")
    if report.refused_total > MAX_SHOWN_REFUSALS:
        print_error(f"refused: {report.refused_total - MAX_SHOWN_REFUSALS:,} more; --json lists them")
    print_line(str(report))


def terminal_width() -> int:
    """Return the number of columns of the terminal, at least 40; 100 if standard output is not a terminal."""
    try:
        return max(40, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        return 100


@contextmanager
def status_line(task: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the current step of a task; it does nothing unless standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console

    with Console(stderr=True).status(task) as status:
        yield lambda step: status.update(f"{task}: {step}")


@contextmanager
def progress_bar(task: str) -> Iterator[Progress | None]:
    """Yield a progress callback that draws a line, or ``None`` if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        bar_task = bar.add_task(task)

        def draw(report: IngestReport) -> None:
            rate = report.confirmed / report.seconds if report.seconds else 0.0
            refused = f", {report.refused_total:,} refused" if report.refused_total else ""
            bar.update(bar_task, description=f"{task}: {report.confirmed:,} confirmed{refused}, {rate:,.0f}/s")

        yield draw
