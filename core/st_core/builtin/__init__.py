"""The models in the wheel: ``builtin:dense``, ``builtin:sparse`` and ``builtin:rerank``.

The README.md in the folder of each is its model card.
"""

from __future__ import annotations

from pathlib import Path

from st_core.errors import ModelNotFound

__all__ = ["DENSE", "HYBRID_WEIGHTS", "NAMES", "PREFIX", "RERANK", "SPARSE", "path"]

PREFIX = "builtin:"
NAMES = ("dense", "sparse", "rerank")
DENSE = f"{PREFIX}dense"
SPARSE = f"{PREFIX}sparse"
RERANK = f"{PREFIX}rerank"

HYBRID_WEIGHTS = (0.25, 0.75)
"""Weights of the legs of ``builtin:dense`` and ``builtin:sparse``, fused by min-max scores.

The static dense vectors are the weaker half: with equal weights, as in reciprocal rank fusion, both together rank worse
than the sparse leg alone. With a quarter of the weight the dense leg decides between near equals and adds documents
that share no word with the query.
"""


def path(name: str) -> Path:
    """Return the folder of a built-in model, named with or without the prefix; raise ModelNotFound for other names."""
    short = name.removeprefix(PREFIX)
    if short not in NAMES:
        raise ModelNotFound(f"unknown built-in model {name!r}; expected one of {DENSE}, {SPARSE}, {RERANK}")
    return Path(__file__).parent / short
