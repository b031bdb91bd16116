"""Pool with numpy, for graphs whose output is token vectors or logits; results equal those of the torch backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from st_core.modules.pooling import Pooling
    from st_core.modules.splade_pooling import SpladePooling

__all__ = ["pool", "splade"]

Vectors = NDArray[np.float32]
Mask = NDArray[np.int64]


def pool(module: Pooling, vectors: Vectors, mask: Mask, prompt_length: NDArray[np.int64] | None) -> Vectors:
    """Pool token vectors [n, t, d] under a mask [n, t] to one vector per text [n, modes * d].

    ``prompt_length`` [n] is the number of leading tokens that belong to the prompt.
    """
    counted = mask
    if prompt_length is not None and not module.include_prompt:
        counted = mask * (np.arange(mask.shape[1]) >= (_first(mask) + prompt_length)[:, None])
    return np.concatenate([POOLS[mode](vectors, counted, mask) for mode in module.modes], axis=-1)


def splade(module: SpladePooling, logits: Vectors, mask: Mask) -> Vectors:
    """Pool logits [n, t, V] under a mask [n, t] to weights [n, V]; zeros for a text without tokens.

    Texts are processed one at a time, so that no second array of the size of the logits is allocated.
    """
    result = np.zeros((len(logits), logits.shape[2]), np.float32)
    for index, row in enumerate(logits):
        real = row[mask[index] > 0]
        if not len(real):
            continue
        result[index] = (
            _saturate(real, doubled=module.doubled).sum(axis=0)
            if module.summed
            else _saturate(real.max(axis=0), doubled=module.doubled)
        )
    return result


def _saturate(logits: Vectors, *, doubled: bool) -> Vectors:
    weights = np.log1p(np.maximum(logits, 0))
    return np.log1p(weights) if doubled else weights


def _first(mask: Mask) -> NDArray[np.intp]:
    """Return the position of the first counted token of each text [n]."""
    return np.asarray(np.argmax(mask > 0, axis=1))


def _has_tokens(counted: Mask) -> NDArray[np.bool_]:
    """Return whether each text has a counted token [n, 1]."""
    return np.asarray(counted.any(axis=1))[:, None]


def _at(vectors: Vectors, position: NDArray[np.intp]) -> Vectors:
    """Return the vector at one position per text [n, d]."""
    return vectors[np.arange(len(vectors)), position]


def _cls(vectors: Vectors, counted: Mask, _mask: Mask) -> Vectors:
    return _at(vectors, _first(counted))


def _maximum(vectors: Vectors, counted: Mask, _mask: Mask) -> Vectors:
    highest = np.where(counted[:, :, None] > 0, vectors, np.float32("-inf")).max(axis=1)
    return np.where(_has_tokens(counted), highest, np.float32(0))


def _weighted_sum(vectors: Vectors, weights: Mask) -> tuple[Vectors, Vectors]:
    """Return the weighted sum of vectors for weights [n, t], and the sum of the weights, with a minimum of 1e-9."""
    floats = weights.astype(np.float32)
    total = np.matmul(floats[:, None, :], vectors)[:, 0]
    return total, np.maximum(floats.sum(axis=1, keepdims=True), np.float32(1e-9))


def _mean(vectors: Vectors, counted: Mask, _mask: Mask) -> Vectors:
    total, divisor = _weighted_sum(vectors, counted)
    return total / divisor


def _mean_sqrt(vectors: Vectors, counted: Mask, _mask: Mask) -> Vectors:
    total, divisor = _weighted_sum(vectors, counted)
    return np.asarray(total / np.sqrt(divisor), np.float32)


def _weighted_mean(vectors: Vectors, counted: Mask, mask: Mask) -> Vectors:
    places = np.arange(1, mask.shape[1] + 1) - _first(mask)[:, None]
    total, divisor = _weighted_sum(vectors, counted * places)
    return total / divisor


def _last(vectors: Vectors, counted: Mask, _mask: Mask) -> Vectors:
    position = counted.shape[1] - 1 - _first(counted[:, ::-1])
    return _at(vectors, position) * _has_tokens(counted).astype(np.float32)


POOLS: Mapping[str, Callable[[Vectors, Mask, Mask], Vectors]] = {
    "cls": _cls,
    "lasttoken": _last,
    "max": _maximum,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
}
"""Pooling modes: functions of token vectors [n, t, d], the mask of counted tokens and the mask of all tokens [n, t]."""
