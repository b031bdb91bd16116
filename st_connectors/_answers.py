"""Recognise answers of servers that were cut off on their way."""

from __future__ import annotations

import re

__all__ = ["is_cut_off"]

_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
"""A string of JSON, or its beginning at the end of a text."""


def is_cut_off(body: str | bytes) -> bool:
    """Return whether a body begins as a JSON object, and ends inside it.

    Such an answer was cut off after the server had received the request, which it may have executed. A page of another
    server begins otherwise.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    if not text.lstrip().startswith("{"):
        return False
    structure = _STRING.sub("", text)
    return sum(map(structure.count, "{[")) > sum(map(structure.count, "}]"))
