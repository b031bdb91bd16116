"""Weights in 16-bit floats: half the bytes, and float32 again before anything is computed where a processor has no better way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TYPES", "to_bits"]

TYPES = ("float16", "bfloat16")

LARGEST = np.uint32(0x7F7F0000).view(np.float32)
"""The largest number of bfloat16."""

QUIET = np.uint16(0x0040)
"""The bit that keeps a NaN one when the lower half of its bits is cut off."""


def to_bits(weights: NDArray[np.float32], dtype: str) -> NDArray[np.uint16] | None:
    """The nearest finite 16-bit floats as their bits, for numpy 2 has no bfloat16; None where one is too large for float16.

    What bfloat16 would round to infinity becomes its largest number: masks hold float32's smallest, and infinity times nothing is no number.
    """
    if dtype == "float16":
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(weights).astype(np.float16)
        return halves.view(np.uint16) if np.isfinite(halves).all() else None
    whole = np.ascontiguousarray(weights)
    bits = np.where(np.isfinite(whole), np.clip(whole, -LARGEST, LARGEST), whole).view(np.uint32)
    nearest = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # of two as near, the even one
    return np.where(np.isnan(whole), (bits >> 16).astype(np.uint16) | QUIET, nearest)
