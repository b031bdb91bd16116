"""Parts of answers that several protocols share."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.server.calls import Result, Scores, SparseVectors, TokenVectors, Vectors
from st_connectors.server.json_text import shortest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.vectors import SparseVector

__all__ = [
    "as_base64",
    "best_first",
    "dense",
    "one",
    "packed",
    "scores",
    "sparse",
    "token_vectors",
    "token_weights",
    "total_tokens",
    "usage",
]


def one(results: Sequence[Result]) -> Result:
    """Return the only result."""
    [result] = results
    return result


def dense(result: Result) -> NDArray[np.float32]:
    """Return the vectors of a result, float32 [n, d]."""
    assert isinstance(result, Vectors)
    return result.rows


def token_vectors(result: Result) -> tuple[NDArray[np.float32], ...]:
    """Return the vectors of the tokens of each text."""
    assert isinstance(result, TokenVectors)
    return result.rows


def sparse(result: Result) -> SparseVectors:
    """Return a result of sparse vectors."""
    assert isinstance(result, SparseVectors)
    return result


def scores(result: Result) -> list[float]:
    """Return the scores of pairs by a model with one label, in order."""
    assert isinstance(result, Scores)
    return shortest(result.values[:, 0])


def best_first(values: Sequence[float], top: int | None) -> list[tuple[int, float]]:
    """Return the indices and scores of the ``top`` best scores, None for all; equal scores stay in order."""
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    return [(index, values[index]) for index in order[: top or None]]


def token_weights(result: SparseVectors, *, by_id: bool = False) -> list[dict[str, float]]:
    """Return each sparse vector as an object of weights by tokens, or by ids as text."""
    return [_weights(row, () if by_id else result.tokens) for row in result.matrix.rows()]


def _weights(row: SparseVector, tokens: Sequence[str]) -> dict[str, float]:
    indices = row.indices.tolist()
    names = [tokens[index] for index in indices] if tokens else map(str, indices)
    return dict(zip(names, shortest(row.values), strict=True))


def as_base64(row: NDArray[np.float32]) -> str:
    """Return a vector as base64 of its little-endian float32 numbers."""
    return base64.b64encode(np.ascontiguousarray(row, dtype="<f4").tobytes()).decode("ascii")


def packed(row: NDArray[np.float32], *, signed: bool) -> list[int]:
    """Return a vector as one bit per dimension, eight bits in each number, signed or not."""
    numbers: list[int] = np.packbits(row > 0).tolist()
    return [number - 128 for number in numbers] if signed else numbers


def total_tokens(results: Sequence[Result]) -> int:
    """Return the number of tokens of all results."""
    return sum(result.usage.total for result in results)


def usage(results: Sequence[Result]) -> dict[str, Any]:
    """Return the ``usage`` of OpenAI's and similar answers."""
    tokens = total_tokens(results)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
