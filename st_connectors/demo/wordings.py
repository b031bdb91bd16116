"""Hand-written search phrases for the most used functions, read from ``wordings.txt``.

Questions are seldom worded like documentation: "what is in a folder" shares no word with the docstring of
``os.listdir``, "Return a list containing the names of the files in the directory". Neither a thesaurus nor the
built-in models close that gap, so the demo indexes phrases for the most used names and shows them in a payload field
of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["wordings"]


def wordings() -> Mapping[str, str]:
    """Return the phrases by qualified name, separated by semicolons."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    entries = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: phrases for name, _, phrases in entries}
