"""MiniLM's forward pass in numpy alone, whose bits are equal wherever the same kernels run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CUT", "encode"]

Array = NDArray[np.float32]

LAYERS, HEADS, WIDTH = 6, 12, 384
CLS, SEP = 101, 102
CUT = 126  # pieces per text: the checkpoint's limit of 128 minus the two special tokens
TOKENS = 2048  # tokens per batch

# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: erf with an error under 1.5e-7.
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def encode(weights: Mapping[str, Array], rows: Sequence[Sequence[int]]) -> Array:
    """Return unit sentence vectors [n, 384] of piece ids without special tokens, each truncated to ``CUT`` pieces."""
    sizes = np.array([min(len(row), CUT) for row in rows])
    result = np.zeros((len(rows), WIDTH), np.float32)
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)  # one length at a time, so that no padding and no mask are needed
        for part in np.array_split(same, -(-same.size * (size + 2) // TOKENS)):
            ids = np.full((part.size, size + 2), CLS)
            ids[:, -1] = SEP
            for at, row in enumerate(part):
                ids[at, 1:-1] = rows[row][:size]
            mean = _states(weights, ids).mean(axis=1)
            result[part] = mean / np.sqrt((mean * mean).sum(axis=1, keepdims=True))
    return result


def _states(weights: Mapping[str, Array], ids: NDArray[Any]) -> Array:
    """Return the last hidden states [n, t, 384] of piece ids [n, t]."""
    count, length = ids.shape
    states = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][:length]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    states = _layer_norm(weights, states, "embeddings.LayerNorm").reshape(count * length, WIDTH)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        mixed = _linear(weights, _attention(weights, states, name, count), name + "attention.output.dense")
        states = _layer_norm(weights, mixed + states, name + "attention.output.LayerNorm")
        inner = _gelu(_linear(weights, states, name + "intermediate.dense"))
        states = _layer_norm(
            weights, _linear(weights, inner, name + "output.dense") + states, name + "output.LayerNorm"
        )
    return states.reshape(count, length, WIDTH)


def _attention(weights: Mapping[str, Array], states: Array, name: str, count: int) -> Array:
    """Apply multi-head self-attention to rows [n·t, 384] of n texts of equal length."""
    query, key, value = (
        _linear(weights, states, f"{name}attention.self.{part}")
        .reshape(count, -1, HEADS, WIDTH // HEADS)
        .transpose(0, 2, 1, 3)
        for part in ("query", "key", "value")
    )
    scores = (query @ key.transpose(0, 1, 3, 2)) * np.float32((WIDTH // HEADS) ** -0.5)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return (scores @ value).transpose(0, 2, 1, 3).reshape(-1, WIDTH)


def _linear(weights: Mapping[str, Array], states: Array, name: str) -> Array:
    return states @ weights[name + ".weight"].T + weights[name + ".bias"]


def _layer_norm(weights: Mapping[str, Array], states: Array, name: str) -> Array:
    centred = states - states.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(1e-12))
    return centred / spread * weights[name + ".weight"] + weights[name + ".bias"]


def _gelu(states: Array) -> Array:
    size = np.abs(states) * np.float32(0.5**0.5)
    step = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(step)
    for factor in reversed(_ERF):
        series = (series + np.float32(factor)) * step
    tail = series * np.exp(-size * size)  # 1 - erf(size)
    return states * np.float32(0.5) * np.where(states < 0, tail, 2 - tail)
