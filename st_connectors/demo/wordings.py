"""How people ask for the functions that are used most: what else each is for, in everyday words, written by hand in ``wordings.txt``.

A question is seldom worded like documentation: "what is in a folder" shares no word with ``os.listdir``'s "Return a list containing the names of
the files in the directory". Neither a thesaurus nor the built-in models close that gap, so the demo brings its own words for the names that
everybody uses, and shows them in a payload field of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["wordings"]


def wordings() -> Mapping[str, str]:
    """The wordings by qualified name: short phrases with a semicolon between them."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    entries = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: phrases for name, _, phrases in entries}
