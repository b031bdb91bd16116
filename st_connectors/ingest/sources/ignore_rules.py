"""The rules of ``.gitignore`` files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["IgnoreFile", "is_ignored", "parse_rule", "read_ignore_file", "rules_above"]

_NAME = ".gitignore"
_TOKEN = re.compile(
    r"(?P<folders>\A\*\*/|(?<=/)\*\*/)|(?P<rest>(?<=/)\*\*\Z)|(?P<stars>\*+)|(?P<one>\?)"
    r"|\[(?P<negated>[!^]?)(?P<set>\]?[^\]]*)\]|\\(?P<escaped>.)|(?P<plain>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a file: what it matches, and whether it includes again what an earlier rule ignores."""

    pattern: re.Pattern[str]
    is_negated: bool
    is_for_folders: bool


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """The rules of a folder, which apply to everything below it."""

    folder: Path
    rules: tuple[Rule, ...]


def rules_above(folder: Path) -> tuple[IgnoreFile, ...]:
    """Return the rules of the folders above a resolved path, up to the root of the repository; none outside of one."""
    above = list(folder.parents)
    root = next((at for at, each in enumerate([folder, *above]) if (each / ".git").exists()), 0)
    return tuple(file for each in reversed(above[:root]) if (file := read_ignore_file(each)).rules)


def read_ignore_file(folder: Path) -> IgnoreFile:
    """Return the rules of a folder; none if it has no readable file."""
    try:
        text = (folder / _NAME).read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    return IgnoreFile(folder, tuple(rule for line in text.splitlines() if (rule := parse_rule(line)) is not None))


def is_ignored(path: Path, files: Sequence[IgnoreFile], *, is_folder: bool) -> bool:
    """Return whether the last rule that matches a path ignores it; rules of deeper folders come last."""
    for file in reversed(files):
        name = path.relative_to(file.folder).as_posix()
        for rule in reversed(file.rules):
            if (is_folder or not rule.is_for_folders) and rule.pattern.fullmatch(name):
                return not rule.is_negated
    return False


def parse_rule(line: str) -> Rule | None:
    """Return the rule of a line; None for a blank line or a comment."""
    text = re.sub(r"(?<!\\)[ \t]+\Z", "", line)
    if not text or text.startswith("#"):
        return None
    is_negated = text.startswith("!")
    text = text.removeprefix("!")
    is_for_folders = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    anywhere = "" if "/" in text else "(?:.*/)?"
    pattern = "".join(_translate(match) for match in _TOKEN.finditer(text.removeprefix("/")))
    try:
        return Rule(re.compile(anywhere + pattern, re.DOTALL), is_negated, is_for_folders)
    except re.error:
        return None


def _translate(match: re.Match[str]) -> str:
    """Return the regular expression of one token of a pattern."""
    match match.lastgroup:
        case "folders":
            return "(?:.*/)?"
        case "rest":
            return ".+"
        case "stars":
            return "[^/]*"
        case "one":
            return "[^/]"
        case "set":
            members = match["set"].replace("\\", "\\\\").replace("[", "\\[")
            return f"(?!/)[{'^' if match['negated'] else ''}{members}]"
        case _:
            return re.escape(match["escaped"] or match["plain"])
