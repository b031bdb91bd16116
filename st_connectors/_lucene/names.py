"""Names: of indices, of fields inside documents, and of rank features."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["METADATA", "escaped", "feature_key", "feature_token", "index_of", "problem_with"]

METADATA = "st_connectors"
"""The key of a mapping's ``_meta`` that holds the schema and how it was laid out."""

_FORBIDDEN = re.compile(r'[\\/*?"<>| ,#:@\x00-\x1f]')
_LONGEST = 250
"""Bytes: an index has 255, and some are for the number behind the name."""


def problem_with(collection: str) -> str | None:
    """Why no index can have this name, in a sentence; None where one can. Ask before any request: a name such as ``*`` means every index."""
    rule = f"the collection {collection!r} cannot be an index"
    if found := _FORBIDDEN.search(collection):
        return f'{rule}: a name holds no {found[0]!r}, nor any of \\ / * ? " < > | , # : @ and space'
    if collection != collection.lower():
        return f"{rule}: a name is in lower case; {collection.lower()!r} would do"
    if collection[0] in "-_+." or collection == "..":
        return f"{rule}: a name does not begin with - _ + or a dot"
    if len(collection.encode()) > _LONGEST:
        return f"{rule}: a name has at most {_LONGEST} bytes of UTF-8"
    return None


def index_of(collection: str) -> str:
    """The index behind the alias that has the collection's name."""
    return f"{collection}@1"


@lru_cache(maxsize=1024)
def escaped(name: str) -> str:
    """A field name as one step of a path: anything but ASCII letters, digits and underscores as ``-hex-``, so that no two names meet."""
    return re.sub(r"[^A-Za-z0-9_]", lambda found: f"-{ord(found[0]):x}-", name)


def feature_key(token: str) -> str:
    """A token as the key of a rank feature, which takes no dots: ``.`` and ``%`` are written as in URLs, so that no two tokens meet."""
    return token.replace("%", "%25").replace(".", "%2E")


def feature_token(key: str) -> str:
    """The token that ``feature_key`` wrote."""
    return key.replace("%2E", ".").replace("%25", "%")
