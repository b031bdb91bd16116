"""The command line ``st-connectors``: one file per command, and the mapping from errors to messages and exit statuses.

``options`` contains the options that commands share, ``output`` prints results, progress and errors, and ``usage``
contains the usage lines of the help.

Exit statuses: 0 success, 1 some records refused or missing, 2 usage error, 3 the store or the model failed, 130
interrupted, 141 the reader of the output closed it (as in ``| head``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import typer
import typer.main

from st_connectors.cli.alter import alter
from st_connectors.cli.conform import conform
from st_connectors.cli.copy import copy
from st_connectors.cli.count import count
from st_connectors.cli.create import create
from st_connectors.cli.delete import delete
from st_connectors.cli.demo import demo
from st_connectors.cli.distill import distill
from st_connectors.cli.drop import drop
from st_connectors.cli.encode import encode
from st_connectors.cli.evaluate import evaluate
from st_connectors.cli.export import export
from st_connectors.cli.gateway import gateway
from st_connectors.cli.get import get
from st_connectors.cli.info import info
from st_connectors.cli.ingest import ingest
from st_connectors.cli.list_collections import list_collections
from st_connectors.cli.migrate import migrate
from st_connectors.cli.mine import mine
from st_connectors.cli.output import (
    BROKEN_PIPE,
    FAILURE,
    INTERRUPTED,
    SUCCESS,
    USAGE_ERROR,
    one_line,
    print_error,
    warnings_as_lines,
)
from st_connectors.cli.relocate import relocate
from st_connectors.cli.replay import replay
from st_connectors.cli.score import score
from st_connectors.cli.search import search
from st_connectors.cli.serve import serve
from st_connectors.cli.setup import setup
from st_connectors.cli.stores import stores
from st_connectors.cli.sync import sync
from st_connectors.cli.train import train
from st_connectors.cli.usage import Command, is_usage_error, usage_message

__all__ = ["app", "main", "run"]


COMMANDS: dict[str, Callable[..., object]] = {
    "demo": demo,
    "create": create,
    "ingest": ingest,
    "sync": sync,
    "replay": replay,
    "search": search,
    "evaluate": evaluate,
    "mine": mine,
    "score": score,
    "train": train,
    "distill": distill,
    "get": get,
    "count": count,
    "list": list_collections,
    "info": info,
    "copy": copy,
    "alter": alter,
    "migrate": migrate,
    "relocate": relocate,
    "delete": delete,
    "drop": drop,
    "stores": stores,
    "encode": encode,
    "serve": serve,
    "setup": setup,
    "gateway": gateway,
    "export": export,
    "conform": conform,
}


def version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Store texts in vector databases and search them."""
    if version:
        from st_core import __version__

        typer.echo(__version__)
        raise typer.Exit


def _application(commands: Mapping[str, Callable[..., object]]) -> typer.Typer:
    """Return the command line with some of the commands."""
    application = typer.Typer(
        name="st-connectors",
        help="Store texts in vector databases and search them.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback(invoke_without_command=True)(version)
    for name, command in commands.items():
        application.command(name, cls=Command)(command)
    return application


app = _application(COMMANDS)


@cache
def _parser(name: str | None) -> Callable[..., object]:
    """Return the parser of one command, or for None that of the help, which has the names and summaries of all.

    typer 0.29 takes 4 ms to build a command with its options, so that all would take half the time of a start.
    """
    chosen = {each: _summary(command) for each, command in COMMANDS.items()} if name is None else {name: COMMANDS[name]}
    return typer.main.get_command(_application(chosen))


def _named(arguments: Sequence[str]) -> str | None:
    """Return the command that arguments begin with, None for another beginning, such as an option."""
    first = next(iter(arguments[1:] if list(arguments[:1]) == ["--"] else arguments), None)
    return first if first in COMMANDS else None


def _summary(command: Callable[..., object]) -> Callable[[], None]:
    """Return a command without options that has the docstring of another."""

    def summary() -> None:
        raise AssertionError("a command is parsed by its own parser")

    summary.__doc__ = command.__doc__
    return summary


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; an error that the user can fix becomes one line on standard error.

    If ``ST_TRACEBACK`` is set in the environment, errors are raised instead.
    """
    try:
        with warnings_as_lines():
            status = _parser(_named(arguments))(list(arguments), prog_name="st-connectors", standalone_mode=False)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):
            return BROKEN_PIPE
        return leaving.code if isinstance(leaving.code, int) else SUCCESS
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if is_usage_error(error):
            print_error(usage_message(error))
            return USAGE_ERROR
        error_status = _status_of(error)
        if error_status is None or os.environ.get("ST_TRACEBACK"):
            raise
        print_error(f"st-connectors: {one_line(error)}")
        return error_status
    return status if isinstance(status, int) else SUCCESS


def _status_of(error: BaseException) -> int | None:
    """Return the exit status for an error that the user can fix; ``None`` for a bug in this package."""
    from st_connectors.cli.reading import SourceChangedError
    from st_connectors.errors import StoreError
    from st_connectors.ingest import (
        DeadLetterError,
        DeletionRefusedError,
        FileInUseError,
        IngestFailed,
        LockError,
        StateError,
        TooManyRefusedError,
    )
    from st_core.errors import ModelError

    match error:
        case IngestFailed():
            return _status_of(error.__cause__) if error.__cause__ is not None else FAILURE
        case StoreError() | ModelError() | FileInUseError() | LockError():
            return FAILURE
        case TooManyRefusedError() | SourceChangedError() | DeletionRefusedError():
            return FAILURE
        case StateError() | DeadLetterError() if isinstance(error.__cause__, OSError):
            return FAILURE  # such as a full disk: the same command succeeds later
        case ValueError() | OSError() | ImportError():
            return USAGE_ERROR
        case _:
            return None
