"""Convert weights to 16-bit floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TYPES", "to_bits"]

TYPES = ("float16", "bfloat16")

LARGEST = np.uint32(0x7F7F0000).view(np.float32)
"""The largest finite value of bfloat16."""

QUIET = np.uint16(0x0040)
"""The bit that keeps a truncated NaN a NaN."""


def to_bits(weights: NDArray[np.float32], dtype: str) -> NDArray[np.uint16] | None:
    """Return weights as the bits of the nearest finite 16-bit floats, because numpy 2 has no bfloat16.

    None where a weight is too large for float16. A value that bfloat16 would round to infinity becomes its largest
    finite value: masks contain the lowest float32 value, and infinity times zero is NaN.
    """
    if dtype == "float16":
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(weights).astype(np.float16)
        return halves.view(np.uint16) if np.isfinite(halves).all() else None
    whole = np.ascontiguousarray(weights)
    bits = np.where(np.isfinite(whole), np.clip(whole, -LARGEST, LARGEST), whole).view(np.uint32)
    nearest = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # rounds ties to even
    return np.where(np.isnan(whole), (bits >> 16).astype(np.uint16) | QUIET, nearest)
