"""Fields of documents that are composed of columns: ``{title}. {body}``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Template", "parse_template"]

_PART = re.compile(r"(?P<escaped>\{\{|\}\})|\{(?P<column>[^{}]+)\}|(?P<brace>[{}])")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with columns in braces, as pairs of literal text and the column that follows it, None at the end."""

    parts: tuple[tuple[str, str | None], ...]

    def __str__(self) -> str:
        texts = [literal.replace("{", "{{").replace("}", "}}") for literal, _ in self.parts]
        columns = ["" if column is None else f"{{{column}}}" for _, column in self.parts]
        return "".join(text + column for text, column in zip(texts, columns, strict=True))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns in order."""
        return tuple(column for _, column in self.parts if column is not None)

    def fill(self, row: Mapping[str, Any]) -> Any:
        """Return the text with the values of a row; None if all its columns are absent or empty.

        An absent or empty column is replaced by an empty text. A template that is a single column returns its value
        unchanged, whatever its type; in all others, values that are not texts are written as JSON.
        """
        columns = self.columns
        if columns and all(row.get(column) in (None, "") for column in columns):
            return None
        if len(columns) == 1 and self.parts == (("", columns[0]), ("", None)):
            return row[columns[0]]
        return "".join(literal + ("" if column is None else _shown(row.get(column))) for literal, column in self.parts)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def parse_template(text: str) -> Template:
    """Parse a template; ``{{`` and ``}}`` are braces. Raises ValueError for a brace without its partner."""
    parts: list[tuple[str, str | None]] = []
    literal, start = "", 0
    for match in _PART.finditer(text):
        if match["brace"]:
            raise ValueError(f"{text!r}: the brace at column {match.start() + 1} has no partner; write {{{{ or }}}}")
        literal += text[start : match.start()] + (match["escaped"] or "")[:1]
        start = match.end()
        if match["column"]:
            parts.append((literal, match["column"]))
            literal = ""
    return Template((*parts, (literal + text[start:], None)))
