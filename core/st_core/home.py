"""Replace ``~`` in paths by a home folder, wherever a path is passed."""

from __future__ import annotations

import os
from os import PathLike

__all__ = ["expand_home"]


def expand_home(path: str | PathLike[str]) -> str:
    """Return a path with its first part ``~`` or ``~USER`` replaced by a home folder, as a shell does.

    A file name that only begins with ``~`` stays unchanged. Raises ValueError if there is no such user, or if the user
    has no home folder, as in a container that runs as an unknown user.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 - pathlib also expands the path ./~
    if expanded == "~" or (expanded.startswith("~") and (os.sep in expanded or "/" in expanded)):
        user = expanded.replace(os.sep, "/").partition("/")[0]
        raise ValueError(f"{user} has no known home folder: write the path without ~, or set HOME")
    return expanded
