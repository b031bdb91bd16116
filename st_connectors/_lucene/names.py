"""Check and convert names of indices, of fields inside documents, and of rank features."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

__all__ = [
    "METADATA",
    "check_collection",
    "copy_alias",
    "escape_field",
    "feature_key",
    "feature_token",
    "index_of",
    "index_path",
    "is_index_of",
    "next_index",
    "own_name",
]

METADATA = "st_connectors"
"""The key of a mapping's ``_meta`` that stores the schema and the form of its fields."""

_FORBIDDEN = re.compile(r'[\\/*?"<>| ,#:@\x00-\x1f]')
_LONGEST = 250
"""The maximum number of bytes of a collection name: 255, the maximum of an index name, less the suffix that
``index_of`` appends."""


def check_collection(collection: str) -> None:
    """Raise ValueError for a name that an index cannot have.

    Must be called before any request is sent, because a name such as ``*`` addresses every index.
    """
    rule = f"the collection {collection!r} cannot be an index"
    if forbidden := _FORBIDDEN.search(collection):
        raise ValueError(f'{rule}: a name contains no {forbidden[0]!r}, nor any of \\ / * ? " < > | , # : @ and space')
    if collection != collection.lower():
        raise ValueError(f"{rule}: a name is in lower case, for example {collection.lower()!r}")
    if collection[0] in "-_+." or collection == "..":
        raise ValueError(f"{rule}: a name does not begin with - _ + or a dot")
    if len(collection.encode()) > _LONGEST:
        raise ValueError(f"{rule}: a name has at most {_LONGEST} bytes of UTF-8")


def index_of(collection: str) -> str:
    """Return the name of the index of a collection; the name of the collection is the alias of this index."""
    return f"{collection}@1"


def next_index(index: str) -> str:
    """Return the name of the index that replaces an index of a collection: ``books@2`` for ``books@1``."""
    collection, _, number = index.rpartition("@")
    return f"{collection}@{int(number) + 1}"


def copy_alias(collection: str) -> str:
    """Return the alias of an index that is to replace the index of a collection; no collection has such a name."""
    return f"{collection}@copy"


def own_name(index: str) -> str:
    """Return the name of the collection of an index that ``index_of`` named; any other index is named by itself."""
    return index.rpartition("@")[0] or index


def is_index_of(index: str, collection: str) -> bool:
    """Return whether an index belongs to a collection; further indices of it have other numbers after the ``@``."""
    return own_name(index) == collection


def index_path(*names: str) -> str:
    """Return the URL path of one or several indices or aliases."""
    return f"/{','.join(quote(name, safe='') for name in names)}"


@lru_cache(maxsize=1024)
def escape_field(name: str) -> str:
    """Return a field name as one element of a path.

    All characters but ASCII letters, digits and underscores become ``-hex-``, so that different names stay different.
    """
    return re.sub(r"[^A-Za-z0-9_]", lambda character: f"-{ord(character[0]):x}-", name)


def feature_key(token: str) -> str:
    """Return a token as the key of a rank feature, which cannot contain dots.

    ``.`` and ``%`` are percent-encoded, so that different tokens stay different.
    """
    return token.replace("%", "%25").replace(".", "%2E")


def feature_token(key: str) -> str:
    """Return the token for a key that ``feature_key`` has returned."""
    return key.replace("%2E", ".").replace("%25", "%")
