"""Print results to standard output, and progress and errors to standard error; define the exit statuses."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer

if TYPE_CHECKING:
    from st_connectors.ingest import IngestReport, Progress
    from st_connectors.store import Capabilities

__all__ = [
    "BROKEN_PIPE",
    "FAILURE",
    "INTERRUPTED",
    "PARTIAL",
    "SUCCESS",
    "USAGE_ERROR",
    "ask",
    "check_progress",
    "confirm",
    "escape_control_characters",
    "escape_line",
    "exit_with_interrupted",
    "exit_with_report",
    "note_if_lost",
    "one_line",
    "print_error",
    "print_escaped",
    "print_json",
    "print_line",
    "progress_bar",
    "progress_text",
    "progress_values",
    "status_line",
    "terminal_width",
    "warnings_as_lines",
]

SUCCESS, PARTIAL, USAGE_ERROR, FAILURE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141
"""The exit statuses. ``PARTIAL``: some records were refused or do not exist."""

MAX_SHOWN_REFUSALS = 5
MAX_SHOWN_KEYS = 12
MAX_REPLACED = 0.01
"""The share of replaced documents above which a report warns that the ids may be of the wrong field."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def print_line(text: str = "") -> None:
    """Print a line of the result to standard output, with control characters as escapes."""
    print_escaped(escape_control_characters(text))


def print_escaped(text: str) -> None:
    """Print a line without control characters of stored text; ``?`` replaces what standard output cannot encode."""
    encoding = _encoding(sys.stdout)
    typer.echo(text.encode(encoding, "replace").decode(encoding))


def _encoding(stream: TextIO) -> str:
    """Return the encoding of a stream, UTF-8 for a stream that does not encode."""
    return getattr(stream, "encoding", None) or "utf-8"


def print_error(text: str) -> None:
    """Print a message to standard error."""
    typer.echo(escape_control_characters(text), err=True)


def escape_control_characters(text: str) -> str:
    r"""Write control characters other than tab and newline, and lone surrogates, as escapes such as ``\u001b``.

    Stored text must not control the terminal. The value of a JSON text does not change, because these characters occur
    only in its strings.
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_line(text: str) -> str:
    """Write all control characters as escapes, those that end a line and tabs too: for ids and keys."""
    return escape_control_characters(text).replace("\n", "\\u000a").replace("\t", "\\u0009")


def confirm(action: str, *, yes: bool) -> None:
    """Ask on standard error whether to perform an action, such as "delete 3 documents"; exit unless the answer is yes.

    Raises ValueError if there is no terminal to ask on. With ``yes`` there is no prompt.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValueError(f"cannot ask whether to {action}: standard input is not a terminal; add --yes")
    if not ask(action):
        print_error("nothing was changed")
        raise typer.Exit(INTERRUPTED)


def ask(action: str) -> bool:
    """Ask on standard error whether to perform an action, and return whether the answer is yes."""
    return typer.confirm(f"{action[0].upper()}{action[1:]}?", err=True)


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, or its class name if it has no message.

    An error about a file is the name of the file and the reason, without the number of the error.
    """
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print warnings as one line, without the source line that Python prints with them."""
    previous = warnings.showwarning

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print_error(f"st-connectors: warning: {' '.join(str(message).split())}")

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = previous


def note_if_lost(address: str, capabilities: Capabilities) -> None:
    """Say that the records of a store that is not persistent are lost when the command ends."""
    if not capabilities.persistent:
        print_error(f"st-connectors: {address} is not persistent: its records are lost when this command ends")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII unless standard output is encoded in UTF-8."""
    is_ascii = codecs.lookup(_encoding(sys.stdout)).name != "utf-8"
    print_line(json.dumps(value, ensure_ascii=is_ascii, default=_plain))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else dict(value)


def exit_with_report(
    report: IngestReport,
    *,
    as_json: bool,
    notes: Sequence[str] = (),
    unfilled: Sequence[str] = (),
    more: str = "--json lists them",
) -> NoReturn:
    """Print the report of an ingest, with its first refusals on standard error, and exit with its status.

    ``notes`` are sentences about the sources, which are part of the JSON. ``unfilled`` are the filterable fields in
    which no record of the collection has a value. ``more`` says where the refused documents are, or how to see them.
    """
    if as_json:
        print_json(report.to_json() | ({"notes": list(notes)} if notes else {}))
    else:
        _print_report(report, unfilled, more)
    raise typer.Exit(PARTIAL if report.refused_total else SUCCESS)


def exit_with_interrupted(
    report: IngestReport,
    *,
    as_json: bool,
    total: int | None = None,
    read: int | None = None,
    hint: str = "run the same ingest again to store the rest",
) -> NoReturn:
    """Say what was read and stored before Ctrl-C, what is left of ``total`` documents, and how to continue, and exit.

    ``read`` counts the documents that were read from the source, which may be more than the report counts. ``total`` is
    None if the number of documents is unknown.
    """
    if as_json:
        print_json(report.to_json() | {"total": total})
    print_error(f"st-connectors: interrupted: {_interrupted_counts(report, read or report.read, total)}; {hint}")
    raise typer.Exit(INTERRUPTED)


def _interrupted_counts(report: IngestReport, read: int, total: int | None) -> str:
    """Return how many documents were read, stored and refused, and how many are left."""
    of_total = "" if total is None else f" of {total:,}"
    stored = report.confirmed - report.replaced
    parts = [f"{read:,}{of_total} documents read", f"{stored:,} stored"]
    if report.replaced:
        parts.append(f"{report.replaced:,} replaced by a later one with the same id")
    if report.refused_total:
        parts.append(f"{report.refused_total:,} refused")
    if report.skipped:
        parts.append(f"{report.skipped:,} already there")
    if report.unchanged:
        parts.append(f"{report.unchanged:,} unchanged")
    if total is not None:
        parts.append(f"{total - report.read:,} left")
    return ", ".join(parts)


def _print_report(report: IngestReport, unfilled: Sequence[str], more: str) -> None:
    for refusal in report.refused[:MAX_SHOWN_REFUSALS]:
        print_error(f"refused: {refusal}")
    more_refused = report.refused_total - min(len(report.refused), MAX_SHOWN_REFUSALS)
    if more_refused:
        print_error(f"refused: {more_refused:,} more{', with those of earlier runs' if report.resumed else ''}")
    if report.refused_total:
        print_error(f"st-connectors: {more}")
    accepted = report.confirmed + report.unchanged
    if report.refused and not accepted and isinstance(document := report.refused[0].document, Mapping):
        print_error(
            f"st-connectors: no document was stored; the keys of the first one are {_listed(document)}: "
            "--id-field, --text-field and --map choose the id and the text"
        )
    if report.replaced > MAX_REPLACED * accepted:
        share = report.replaced / accepted
        print_error(
            f"st-connectors: warning: {report.replaced:,} of {accepted:,} documents ({share:.1%}) were "
            "replaced by a later one with the same id; choose an id field with distinct values, such as with --id-field"
        )
    if unfilled:
        names = ", ".join(map(repr, unfilled))
        print_error(f"st-connectors: no document has a value under {names}, declared as filterable; check the names")
    print_line(str(report))


def _listed(keys: Iterable[object]) -> str:
    names = list(map(str, keys))
    return ", ".join(names[:MAX_SHOWN_KEYS]) + (", …" if len(names) > MAX_SHOWN_KEYS else "")


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


def progress_text(report: IngestReport, expected: float | None) -> str:
    """Return the counts and rates of an ingest, and the part done and the time left of ``expected`` documents."""
    values = progress_values(report, expected)
    parts = [f"{report.confirmed:,} confirmed"]
    if report.refused_total:
        parts.append(f"{report.refused_total:,} refused")
    if report.retries:
        parts.append(f"{report.retries:,} retries")
    parts.append(f"{values['documents_per_second']:,.0f}/s")
    if report.tokens:
        parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    if report.encode_seconds or report.write_seconds:
        parts.append(f"encoder {values['encoder_share']:.0%}, store {values['store_share']:.0%}")
    if values["seconds_left"] is not None:
        left = timedelta(seconds=round(values["seconds_left"]))
        parts.append(f"{min(1.0, report.read / values['expected']):.0%}, {left} left")
    return ", ".join(parts)


def progress_values(report: IngestReport, expected: float | None) -> dict[str, Any]:
    """Return the counts and rates of an ingest as plain values; ``seconds_left`` is None if it is unknown.

    ``encoder_share`` and ``store_share`` are the parts of the time in which texts were encoded, and written. They
    overlap, and several writers can write for longer than the ingest takes, which counts as 1.
    """
    seconds = report.seconds or math.inf
    rate = (report.read - report.resumed) / seconds
    left = max(0.0, expected - report.read) / rate if expected and rate else None
    return {
        "read": report.read,
        "confirmed": report.confirmed,
        "refused": report.refused_total,
        "resumed": report.resumed,
        "retries": report.retries,
        "seconds": round(report.seconds, 3),
        "documents_per_second": round(rate, 1),
        "tokens_per_second": round(report.tokens / seconds, 1),
        "encoder_share": round(min(1.0, report.encode_seconds / seconds), 3),
        "store_share": round(min(1.0, report.write_seconds / seconds), 3),
        "expected": expected,
        "seconds_left": None if left is None else round(left, 1),
    }


def check_progress(form: str) -> None:
    """Raise ValueError for a form of progress that does not exist."""
    if form not in {"auto", "json", "none"}:
        raise ValueError(f"--progress {form!r}: expected auto, json or none")


@contextmanager
def progress_bar(
    task: str, expected: Callable[[], float | None] = lambda: None, *, form: str = "auto"
) -> Iterator[Progress | None]:
    """Yield a progress callback, or None if nothing is to be shown.

    "auto" draws a line if standard error is a terminal; "json" prints a line of JSON to standard error, at most one a
    second; "none" shows nothing. ``expected`` returns the number of documents to expect, if it is known. Raises
    ValueError for another form.
    """
    check_progress(form)
    if form == "json":
        yield _print_values(expected)
    elif form == "auto" and sys.stderr.isatty():
        with _drawn_line(task, expected) as draw:
            yield draw
    else:
        yield None


def _print_values(expected: Callable[[], float | None]) -> Progress:
    printed = -math.inf

    def print_values(report: IngestReport) -> None:
        nonlocal printed
        if time.monotonic() - printed >= 1:
            printed = time.monotonic()
            print_error(json.dumps(progress_values(report, expected())))

    return print_values


@contextmanager
def _drawn_line(task: str, expected: Callable[[], float | None]) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        bar_task = bar.add_task(task)

        def draw(report: IngestReport) -> None:
            bar.update(bar_task, description=f"{task}: {progress_text(report, expected())}")

        yield draw
