"""Quantize vectors to int8, uint8 or one bit per dimension with the formulas of sentence-transformers 6.2."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from st_core.tensors import is_tensor, numpy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Precision", "dequantize", "quantization_ranges", "quantize_embeddings"]

log = logging.getLogger(__name__)

Array: TypeAlias = "NDArray[Any]"
"""An array of floats, or of the integers of a precision."""

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
STEPS = 255
FEW = 100
"""The number of vectors below which a warning is logged: ranges of so few vectors do not suit other vectors."""


def quantize_embeddings(
    embeddings: object,
    precision: Precision,
    ranges: Array | None = None,
    calibration_embeddings: Array | None = None,
) -> Array | list[Array]:
    """Quantize float vectors [n, d] or [d], arrays or tensors, to a precision.

    ``int8`` and ``uint8`` divide the range of each dimension into 255 steps. The ranges are ``ranges`` [2, d] (minimum,
    maximum), or else those of ``calibration_embeddings`` [m, d], or else those of the vectors themselves; in the last
    case the results of two calls are not comparable. ``binary`` and ``ubinary`` store one bit per dimension, 1 for a
    positive value, eight bits to a byte [n, ceil(d / 8)]; the values of ``binary`` are those of ``ubinary`` minus 128.
    For a list of matrices [t, d], the matrices are quantized with common ranges and returned as a list. Raises
    ValueError for an unknown precision and if the ranges would have to be taken from a single vector.
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


def dequantize(codes: Array, precision: str, ranges: Array) -> Array:
    """Return the lower ends of the steps that int8 or uint8 values [..., d] stand for, as float64."""
    low, high = np.asarray(ranges).astype(np.float32, copy=False)
    steps = (high - low) / STEPS
    numbers = codes.astype(np.float64) + (128 if precision == "int8" else 0)
    return np.asarray(numbers * np.where(steps == 0, 1, steps) + low)


def quantization_ranges(embeddings: Array) -> Array:
    """Return the minimum and the maximum of each dimension [2, d], for the argument ``ranges``."""
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
    """Return a matrix for a list of vectors, and a list of matrices with common ranges for a list of matrices."""
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
    """Return the number of each value's step in its range: from 0 to 255 for uint8, from -128 to 127 for int8."""
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
