"""Format records and tables for reading in a terminal."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from st_connectors.cli.output import escape_line

if TYPE_CHECKING:
    from st_connectors.store import Record

__all__ = ["aligned", "record_card", "value_text", "wrapped"]


def record_card(record: Record) -> str:
    """Return a record's id and its payload, one key per line; lines of a text are indented under their key."""
    lines = [escape_line(record.id)]
    for key, value in record.payload.items():
        first, *rest = value_text(value).splitlines() or [""]
        lines += [f"  {escape_line(key)}: {first}".rstrip(), *(f"      {line}".rstrip() for line in rest)]
    return "\n".join(lines)


def value_text(value: Any) -> str:
    """Return a string as it is, and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, with its cells in columns; the last column is not padded."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def wrapped(rows: Sequence[tuple[str, str]], *, width: int, indent: str = "") -> list[str]:
    """Return lines of labels and values in two columns; values that are too long continue in their column."""
    start = len(indent) + max(len(label) for label, _ in rows) + 2
    lines = []
    for label, value in rows:
        parts = textwrap.wrap(value, max(width - start, 20), break_long_words=False, break_on_hyphens=False) or [""]
        lines.append(f"{indent}{label}".ljust(start) + parts[0])
        lines += [" " * start + part for part in parts[1:]]
    return [line.rstrip() for line in lines]
