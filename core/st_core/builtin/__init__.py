"""The two models shipped in the wheel, ``builtin:dense`` and ``builtin:sparse``; each folder's README.md is its model card."""

from __future__ import annotations

from pathlib import Path

from st_core.errors import ModelNotFound

__all__ = ["HYBRID_WEIGHTS", "NAMES", "PREFIX", "path"]

PREFIX = "builtin:"
NAMES = ("dense", "sparse")

HYBRID_WEIGHTS = (0.25, 0.75)
"""Dense and sparse weight of min-max fusion for this pair.

The static dense vectors are the weaker half: reciprocal ranks give both lists an equal voice and lose against the sparse list alone, while a quarter
of the say lets the dense list decide among near equals and find what shares no word with the query.
"""


def path(name: str) -> Path:
    """The folder of a built-in model by its name, with or without the prefix: ``dense``, ``builtin:dense``; raises ModelNotFound for any other."""
    short = name.removeprefix(PREFIX)
    if short not in NAMES:
        raise ModelNotFound(f"no built-in model {name!r}: there are {' and '.join(PREFIX + known for known in NAMES)}")
    return Path(__file__).parent / short
