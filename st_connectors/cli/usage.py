"""How commands show their arguments, and what a wrong use of them costs: one line, as every other mistake does."""

from __future__ import annotations

import re
from typing import Any, cast

import typer
from typer.core import TyperCommand

__all__ = ["Command", "is_wrong_use", "wrong_use"]

_WRONG_USE = typer.BadParameter.__mro__[1]
"""UsageError of click, or of the copy of click inside typer 0.29, which exports only the subclass."""


class Command(TyperCommand):
    """A command whose usage has ``MODEL``, ``SOURCE...`` and ``[TEXT...]``, whatever way typer writes arguments."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The options and arguments of the usage line."""
        return [_piece(piece) for piece in super().collect_usage_pieces(ctx)]


def _piece(piece: str) -> str:
    """An argument as it stands in the usage: typer 0.29 puts braces round a required one, and dots behind one that names its own."""
    bare = re.sub(r"^\{(.*)\}(\.\.\.)?$", r"\1\2", piece)
    return re.sub(r"\.\.\.(\]?)\.\.\.$", r"...\1", bare)


def is_wrong_use(error: Exception) -> bool:
    """Whether the parser of the command line raised it."""
    return isinstance(error, _WRONG_USE)


def wrong_use(error: Exception) -> str:
    """What to tell about an error of the parser: one line with the command whose help says more, or all the help where nothing was given."""
    parsed = cast("typer.BadParameter", error)
    said = parsed.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return said
    told = " ".join(said.split()).removesuffix(".")
    return f"st-connectors: {told}; see {parsed.ctx.command_path if parsed.ctx else 'st-connectors'} --help"
