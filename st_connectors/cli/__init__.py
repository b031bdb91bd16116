"""The command line ``st-connectors``: one file per command, and one place where errors become a line and an exit status.

Exit status: 0 done, 1 some records refused or not found, 2 wrong use, 3 the store or the model failed, 130 interrupted,
141 nobody reads on (as in ``| head``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from st_connectors.cli.conform import conform
from st_connectors.cli.copy import copy
from st_connectors.cli.count import count
from st_connectors.cli.create import create
from st_connectors.cli.demo import demo
from st_connectors.cli.drop import drop
from st_connectors.cli.encode import encode
from st_connectors.cli.export import export
from st_connectors.cli.get import get
from st_connectors.cli.ingest import ingest
from st_connectors.cli.output import CUT_OFF, DONE, FAILED, INTERRUPTED, WRONG_USE, complain, one_line
from st_connectors.cli.search import search
from st_connectors.cli.stores import stores
from st_connectors.cli.usage import Command, is_wrong_use, wrong_use

__all__ = ["app", "main", "run"]


app = typer.Typer(
    name="st-connectors",
    help="Put text into vector stores and find it again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, create, ingest, search, get, count, copy, drop, stores, encode, export, conform):
    app.command(cls=Command)(command)


@app.callback(invoke_without_command=True)
def version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Put text into vector stores and find it again."""
    if version:
        from st_core import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line and leave with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit status; an error that people can do something about becomes one line on standard error.

    With ``ST_TRACEBACK`` set in the environment errors come through whole.
    """
    try:
        status = app(list(arguments), prog_name="st-connectors", standalone_mode=False)
    except SystemExit as leave:
        if isinstance(leave.__context__, BrokenPipeError):
            return CUT_OFF
        return leave.code if isinstance(leave.code, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if is_wrong_use(error):
            complain(wrong_use(error))
            return WRONG_USE
        known = _status_of(error)
        if known is None or os.environ.get("ST_TRACEBACK"):
            raise
        complain(f"st-connectors: {one_line(error)}")
        return known
    return status if isinstance(status, int) else DONE


def _status_of(error: BaseException) -> int | None:
    """The exit status for errors that say what to do; None for a fault of our own."""
    from st_connectors.errors import StoreError
    from st_connectors.ingest import IngestFailed
    from st_core.errors import ModelError

    match error:
        case IngestFailed():
            return _status_of(error.__cause__) if error.__cause__ is not None else FAILED
        case StoreError() | ModelError():
            return FAILED
        case ValueError() | OSError() | ImportError():
            return WRONG_USE
        case _:
            return None
