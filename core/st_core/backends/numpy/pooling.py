"""Pooling in numpy, for graphs that end at the vectors or the logits of tokens; the numbers are those of the torch backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.modules.pooling import Pooling
    from st_core.modules.splade_pooling import SpladePooling

__all__ = ["pool", "run_pooling", "run_splade", "splade"]

Array = Any


def run_pooling(module: Pooling, features: Features) -> Features:
    """The vectors of tokens become one vector."""
    vectors, mask = features["token_embeddings"], features["attention_mask"]
    return features | {"sentence_embedding": pool(module, vectors, mask, features.get("prompt_length"))}


def run_splade(module: SpladePooling, features: Features) -> Features:
    """The logits of tokens become weights of the vocabulary."""
    return features | {"sentence_embedding": splade(module, features["token_embeddings"], features["attention_mask"])}


def pool(
    module: Pooling, vectors: NDArray[np.float32], mask: NDArray[np.int64], prompt_length: NDArray[np.int64] | None
) -> NDArray[np.float32]:
    """Token vectors [n, t, d] under a mask [n, t] as one vector per row [n, modes * d]."""
    counted = mask
    if prompt_length is not None and not module.include_prompt:
        counted = mask * (np.arange(mask.shape[1]) >= (_first(mask) + prompt_length)[:, None])
    return np.concatenate([POOLS[mode](vectors, counted, mask) for mode in module.modes], axis=-1)


def splade(module: SpladePooling, logits: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits [n, t, V] under a mask [n, t] as weights [n, V]; row by row, so that no second array of their size is made."""
    result = np.zeros((len(logits), logits.shape[2]), np.float32)
    for index, row in enumerate(logits):
        real = row[mask[index] > 0]
        if len(real):
            result[index] = (
                _saturated(module, real).sum(axis=0) if module.summed else _saturated(module, real.max(axis=0))
            )
    return result


def _saturated(module: SpladePooling, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = np.log1p(np.maximum(logits, 0))
    return np.log1p(weights) if module.doubled else weights


def _first(mask: Array) -> Array:
    """The position of the first token that counts in each row [n]."""
    return (mask > 0).argmax(axis=1)


def _row(vectors: Array, position: Array) -> Array:
    return vectors[np.arange(len(vectors)), position]


def _cls(vectors: Array, counted: Array, _mask: Array) -> Array:
    return _row(vectors, _first(counted))


def _maximum(vectors: Array, counted: Array, _mask: Array) -> Array:
    highest = np.where(counted[:, :, None] > 0, vectors, np.float32("-inf")).max(axis=1)
    return np.where(counted.any(axis=1)[:, None], highest, np.float32(0))


def _divided(vectors: Array, weights: Array, *, root: bool = False) -> Array:
    """The sum over tokens of vectors times weights [n, t], divided by the sum of the weights or its ``root``."""
    weights = weights.astype(np.float32)
    divisor = np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-9))
    return np.matmul(weights[:, None, :], vectors)[:, 0] / (np.sqrt(divisor) if root else divisor)


def _mean(vectors: Array, counted: Array, _mask: Array) -> Array:
    return _divided(vectors, counted)


def _mean_sqrt(vectors: Array, counted: Array, _mask: Array) -> Array:
    return _divided(vectors, counted, root=True)


def _weighted_mean(vectors: Array, counted: Array, mask: Array) -> Array:
    return _divided(vectors, counted * (np.arange(1, mask.shape[1] + 1) - _first(mask)[:, None]))


def _last(vectors: Array, counted: Array, _mask: Array) -> Array:
    position = counted.shape[1] - 1 - (counted[:, ::-1] > 0).argmax(axis=1)
    return _row(vectors, position) * counted.any(axis=1)[:, None].astype(np.float32)


POOLS: Mapping[str, Callable[[Array, Array, Array], Array]] = {
    "cls": _cls,
    "lasttoken": _last,
    "max": _maximum,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
}
