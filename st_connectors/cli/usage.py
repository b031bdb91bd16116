"""Usage lines of the commands' help, and the message for arguments that cannot be parsed."""

from __future__ import annotations

import re
from typing import Any, cast

import typer
from typer.core import TyperCommand

__all__ = ["Command", "is_usage_error", "usage_message"]

_USAGE_ERROR = typer.BadParameter.__mro__[1]
"""``UsageError`` of click, or of the copy of click inside typer 0.29, which exports only this subclass of it."""


class Command(TyperCommand):
    """A command whose usage line shows ``MODEL``, ``SOURCE...`` and ``[TEXT...]``, however typer formats arguments."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the options and arguments of the usage line."""
        return [_plain_argument(piece) for piece in super().collect_usage_pieces(ctx)]


def _plain_argument(piece: str) -> str:
    """Strip what typer 0.29 adds: braces around a required argument, dots after a metavar that ends in dots already."""
    bare = re.sub(r"^\{(.*)\}(\.\.\.)?$", r"\1\2", piece)
    return re.sub(r"\.\.\.(\]?)\.\.\.$", r"...\1", bare)


def is_usage_error(error: Exception) -> bool:
    """Return whether the command line parser raised an error."""
    return isinstance(error, _USAGE_ERROR)


def usage_message(error: Exception) -> str:
    """Return one line that names the ``--help`` to read, or the whole help if no arguments were passed."""
    parser_error = cast("typer.BadParameter", error)
    message = parser_error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return message
    line = " ".join(message.split()).removesuffix(".")
    command = parser_error.ctx.command_path if parser_error.ctx else "st-connectors"
    return f"st-connectors: {line}; see {command} --help"
