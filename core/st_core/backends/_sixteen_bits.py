"""Weights in 16-bit floats: half the bytes, and float32 again before anything is computed where a processor has no better way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TYPES", "to_bits"]

TYPES = ("float16", "bfloat16")


def to_bits(weights: NDArray[np.float32], dtype: str) -> NDArray[np.uint16] | None:
    """The nearest 16-bit floats as their bits, for numpy 2 has no bfloat16; None where one is too large for float16."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(weights).astype(np.float16)
        return halves.view(np.uint16) if np.isfinite(halves).all() else None
    bits = np.ascontiguousarray(weights).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # of two as near, the even one
