"""Quantize vectors to int8, uint8 or one bit per dimension, with the formulas of sentence-transformers 6.2."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from st_core.similarity import is_tensor, numpy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Precision", "quantization_ranges", "quantize_embeddings"]

log = logging.getLogger(__name__)

Array: TypeAlias = "NDArray[Any]"
"""Floats, or the integers of a precision."""

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
STEPS = 255
FEW = 100
"""Ranges of fewer vectors fit other vectors poorly."""


def quantize_embeddings(
    embeddings: object,
    precision: Precision,
    ranges: Array | None = None,
    calibration_embeddings: Array | None = None,
) -> Array | list[Array]:
    """Quantize float vectors [n, d] or [d], arrays or tensors, to a precision.

    ``int8`` and ``uint8`` divide each dimension's range into 255 steps; the range comes from ``ranges`` [2, d] (least,
    greatest), else from ``calibration_embeddings`` [m, d], else from the vectors themselves, so that two calls are not
    comparable. ``binary`` and ``ubinary`` pack the signs, eight to a byte [n, ceil(d / 8)]; ``binary`` is the byte
    minus 128. A list of matrices [t, d] gives a list with common ranges. Raises ValueError for an unknown precision and
    for ranges of a single vector.
    """
    if isinstance(embeddings, Sequence):
        return _quantize_list(embeddings, precision, ranges, calibration_embeddings)
    array = numpy_of(embeddings) if is_tensor(embeddings) else np.asarray(embeddings)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"expected float vectors, got {array.dtype}: they may be quantized already")
    match precision:
        case "float32":
            return array.astype(np.float32)
        case "binary":
            return (np.packbits(array > 0, axis=-1) - 128).astype(np.int8)
        case "ubinary":
            return np.packbits(array > 0, axis=-1)
        case "int8" | "uint8":
            return _scaled(array, precision, ranges, calibration_embeddings)
    raise ValueError(f"unknown precision {precision!r}; expected one of float32, int8, uint8, binary, ubinary")


def quantization_ranges(embeddings: Array) -> Array:
    """Return the least and the greatest value of each dimension [2, d], for ``ranges``."""
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ValueError(
            "expected two or more vectors to take ranges from; pass ranges, or calibration_embeddings of typical texts"
        )
    return np.stack((embeddings.min(axis=0), embeddings.max(axis=0)))


def _quantize_list(
    embeddings: Sequence[object],
    precision: Precision,
    ranges: Array | None,
    calibration_embeddings: Array | None,
) -> Array | list[Array]:
    """Return a matrix for a list of vectors, and a list with common ranges for a list of matrices."""
    if not embeddings:
        return []
    arrays = [numpy_of(each) if is_tensor(each) else np.asarray(each) for each in embeddings]
    if arrays[0].ndim != 2:
        stacked = np.stack(arrays)
        return quantize_embeddings(stacked, precision, ranges, calibration_embeddings)
    if precision in {"int8", "uint8"} and ranges is None:
        sample = np.concatenate(arrays) if calibration_embeddings is None else calibration_embeddings
        ranges = quantization_ranges(sample) if len(sample) else None
    return [np.asarray(quantize_embeddings(array, precision, ranges)) for array in arrays]


def _scaled(
    array: Array,
    precision: Literal["int8", "uint8"],
    ranges: Array | None,
    calibration_embeddings: Array | None,
) -> Array:
    """Return each value as the number of its step, from 0 to 255, or from -128 to 127."""
    dtype = np.int8 if precision == "int8" else np.uint8
    if array.ndim == 2 and len(array) == 0:
        return np.zeros(array.shape, dtype)
    if ranges is None and calibration_embeddings is None and array.ndim == 2 and 1 < len(array) < FEW:
        log.warning("%s ranges come from %d vectors only: pass ranges or calibration_embeddings", precision, len(array))
    if ranges is None:
        ranges = quantization_ranges(array if calibration_embeddings is None else calibration_embeddings)
    low, high = np.asarray(ranges).astype(np.float32, copy=False)
    steps = (high - low) / STEPS
    numbers = np.clip(np.floor((array - low) / np.where(steps == 0, 1, steps)), 0, STEPS)
    return np.asarray(numbers - 128 if precision == "int8" else numbers, dtype)
