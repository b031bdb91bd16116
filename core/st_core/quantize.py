"""Vectors of fewer bits: int8, uint8, and one bit a dimension; the formulas and the argument names are sentence-transformers 6.2's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from st_core.similarity import is_tensor, numpy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Precision", "quantization_ranges", "quantize_embeddings"]

log = logging.getLogger(__name__)

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
STEPS = 255
FEW = 100
"""With fewer vectors than this, ranges taken from them are a poor guide to others."""


def quantize_embeddings(
    embeddings: Any,
    precision: Precision,
    ranges: NDArray[Any] | None = None,
    calibration_embeddings: NDArray[Any] | None = None,
) -> NDArray[Any] | list[NDArray[Any]]:
    """Bring float vectors [n, d] or [d], arrays or tensors, to a precision.

    ``int8`` and ``uint8`` cut each dimension's range into 255 steps; the range comes from ``ranges`` [2, d] (least, greatest), else from
    ``calibration_embeddings`` [m, d], else from the vectors themselves, so that two calls do not agree with one another. ``binary`` and
    ``ubinary`` pack the signs, eight to a byte [n, ceil(d / 8)]; ``binary`` is the byte minus 128. A list of matrices [t, d] gives a list,
    all with the same ranges. Raises ValueError for an unknown precision, and where ranges would have to come from a single vector.
    """
    if isinstance(embeddings, Sequence):
        return _listed(embeddings, precision, ranges, calibration_embeddings)
    array = numpy_of(embeddings) if is_tensor(embeddings) else np.asarray(embeddings)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"vectors to quantize must be floats, not {array.dtype}: they may have been quantized already")
    match precision:
        case "float32":
            return array.astype(np.float32)
        case "binary":
            return (np.packbits(array > 0, axis=-1) - 128).astype(np.int8)
        case "ubinary":
            return np.packbits(array > 0, axis=-1)
        case "int8" | "uint8":
            return _scaled(array, precision, ranges, calibration_embeddings)
    raise ValueError(f"{precision!r} is no precision; there are float32, int8, uint8, binary and ubinary")


def quantization_ranges(embeddings: NDArray[Any]) -> NDArray[Any]:
    """The least and the greatest value of each dimension [2, d], as ``ranges`` wants them."""
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ValueError("a range needs two or more vectors: give ranges, or calibration_embeddings of typical texts")
    return np.stack((embeddings.min(axis=0), embeddings.max(axis=0)))


def _listed(
    embeddings: Sequence[Any],
    precision: Precision,
    ranges: NDArray[Any] | None,
    calibration_embeddings: NDArray[Any] | None,
) -> NDArray[Any] | list[NDArray[Any]]:
    """A list of vectors is a matrix; a list of matrices stays a list and shares its ranges."""
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
    array: NDArray[Any],
    precision: Literal["int8", "uint8"],
    ranges: NDArray[Any] | None,
    calibration_embeddings: NDArray[Any] | None,
) -> NDArray[Any]:
    """Each value as the number of its step, from 0 to 255, or from -128 to 127."""
    kind = np.int8 if precision == "int8" else np.uint8
    if array.ndim == 2 and len(array) == 0:
        return np.zeros(array.shape, kind)
    if ranges is None and calibration_embeddings is None and array.ndim == 2 and 1 < len(array) < FEW:
        log.warning("%s ranges come from %d vectors only: give ranges or calibration_embeddings", precision, len(array))
    if ranges is None:
        ranges = quantization_ranges(array if calibration_embeddings is None else calibration_embeddings)
    low, high = np.asarray(ranges).astype(np.float32, copy=False)
    steps = (high - low) / STEPS
    numbers = np.clip(np.floor((array - low) / np.where(steps == 0, 1, steps)), 0, STEPS)
    quantized: NDArray[Any] = (numbers - 128 if precision == "int8" else numbers).astype(kind)
    return quantized
