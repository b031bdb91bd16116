"""The front matter of Markdown files: a block of YAML at the start, between lines of three hyphens."""

from __future__ import annotations

import re
from typing import Any

from st_connectors.ingest.sources.plain_values import plain_tree

__all__ = ["split_front_matter"]

_BLOCK = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def split_front_matter(text: str) -> tuple[dict[str, Any] | None, str]:
    """Return the values of the front matter and the text after it; an empty mapping and the text if there is none.

    The mapping is None if the text begins with such a block that is not YAML, which then remains in the text, and so
    does a block that is YAML but not a mapping. Dates become ISO 8601; YAML's aliases are not accepted.
    """
    block = _BLOCK.match(text)
    if block is None:
        return {}, text
    import yaml

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(block[1])):
            return None, text
        values = yaml.safe_load(block[1])
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: 2020-02-30, which has the form of a date
        return None, text
    if values is not None and not isinstance(values, dict):
        return {}, text
    return plain_tree(values or {}), text[block.end() :].lstrip("\r\n")
