"""Usage lines of the commands' help, and the message for arguments that cannot be parsed."""

from __future__ import annotations

import re
from typing import Any, cast

import typer
from typer.core import TyperCommand

__all__ = ["Command", "is_usage_error", "usage_message"]

_USAGE_ERROR = typer.BadParameter.__mro__[1]
"""``UsageError`` of click, or of the copy of click that typer 0.29 contains and from which it exports only the subclass
``BadParameter``."""


class Command(TyperCommand):
    """A command whose usage line shows arguments in the usual notation, such as ``MODEL`` or ``[TEXT...]``.

    The notation is the same for every version of typer.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the options and arguments of the usage line."""
        return [_plain_argument(piece) for piece in super().collect_usage_pieces(ctx)]


def _plain_argument(piece: str) -> str:
    """Return an argument of a usage line without the characters that typer 0.29 adds.

    These are braces around a required argument, and dots after a metavar that already ends in dots.
    """
    bare = re.sub(r"^\{(.*)\}(\.\.\.)?$", r"\1\2", piece)
    return re.sub(r"\.\.\.(\]?)\.\.\.$", r"...\1", bare)


def is_usage_error(error: Exception) -> bool:
    """Return whether the command line parser raised an error."""
    return isinstance(error, _USAGE_ERROR)


def usage_message(error: Exception) -> str:
    """Return the message with the ``--help`` command to run, or the complete help if no arguments were passed."""
    parser_error = cast("typer.BadParameter", error)
    message = parser_error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return message
    line = " ".join(message.split()).removesuffix(".")
    command = parser_error.ctx.command_path if parser_error.ctx else "st-connectors"
    return f"st-connectors: {line}; see {command} --help"
