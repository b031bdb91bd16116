"""Pooling in torch: vectors or logits of tokens as one vector a text; pure functions on tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from st_core.backends.torch.products import Linear

if TYPE_CHECKING:
    from st_core.modules.pooling import Pooling
    from st_core.modules.splade_pooling import SpladePooling

__all__ = [
    "POOLS",
    "VOCABULARY_BLOCK",
    "first_real",
    "pool",
    "saturate",
    "splade",
    "splade_from_hidden",
    "vocabulary_blocks",
    "without_prompt",
]

VOCABULARY_BLOCK = 4_096
"""Columns of vocabulary logits that exist at once."""


def first_real(mask: Tensor) -> Tensor:
    """The position of the first token that counts in each row of a mask [n, t]: [n]."""
    return mask.to(torch.int32).argmax(dim=1)


def without_prompt(mask: Tensor, prompt_length: Tensor) -> Tensor:
    """Return the mask [n, t] without the first ``prompt_length`` real tokens, [n] or [1], of each row."""
    positions = torch.arange(mask.shape[1], device=mask.device)[None, :]
    return mask * (positions >= (first_real(mask) + prompt_length)[:, None])


def pool(
    module: Pooling, vectors: Tensor, mask: Tensor, prompt_length: Tensor | None, total: Tensor | None = None
) -> Tensor:
    """Token vectors [n, t, d] under a mask [n, t] as one vector per row [n, modes * d]; sums of half-precision vectors are float32."""
    counted = mask if module.include_prompt or prompt_length is None else without_prompt(mask, prompt_length)
    wide = vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors
    return torch.cat([POOLS[mode](wide, counted, mask, total) for mode in module.modes], dim=-1).to(vectors.dtype)


def _row(vectors: Tensor, position: Tensor) -> Tensor:
    return vectors[torch.arange(vectors.shape[0], device=vectors.device), position]


def _cls(vectors: Tensor, counted: Tensor, _mask: Tensor, _total: Tensor | None) -> Tensor:
    return _row(vectors, first_real(counted))


def _maximum(vectors: Tensor, counted: Tensor, _mask: Tensor, _total: Tensor | None) -> Tensor:
    highest = vectors.masked_fill(counted[:, :, None] == 0, float("-inf")).amax(dim=1)
    return torch.where(counted.any(dim=1, keepdim=True), highest, 0.0)


def _weighted(vectors: Tensor, weights: Tensor) -> Tensor:
    """The sum over tokens of vectors [n, t, d] times weights [n, t]: [n, d]."""
    return torch.einsum("nt,ntd->nd", weights.to(vectors.dtype), vectors)


def _divisor(weights: Tensor, vectors: Tensor, total: Tensor | None) -> Tensor:
    """What a sum of weighted vectors is divided by: ``total`` [n], where the vectors bring weights of their own, else the sum of weights."""
    found = weights.to(vectors.dtype).sum(dim=1) if total is None else total.to(vectors.dtype)
    return found[:, None].clamp(min=1e-9)


def _mean(vectors: Tensor, counted: Tensor, _mask: Tensor, total: Tensor | None) -> Tensor:
    return _weighted(vectors, counted) / _divisor(counted, vectors, total)


def _mean_sqrt(vectors: Tensor, counted: Tensor, _mask: Tensor, total: Tensor | None) -> Tensor:
    return _weighted(vectors, counted) / _divisor(counted, vectors, total).sqrt()


def _weighted_mean(vectors: Tensor, counted: Tensor, mask: Tensor, total: Tensor | None) -> Tensor:
    positions = torch.arange(1, vectors.shape[1] + 1, device=vectors.device)[None, :] - first_real(mask)[:, None]
    weights = counted * positions
    return _weighted(vectors, weights) / _divisor(weights, vectors, total)


def _last(vectors: Tensor, counted: Tensor, _mask: Tensor, _total: Tensor | None) -> Tensor:
    tokens = vectors.shape[1]
    values, behind = counted.flip(1).max(dim=1)
    position = tokens - 1 - torch.where(values == 0, tokens - 1, behind)
    return _row(vectors, position) * _row(counted[:, :, None], position).to(vectors.dtype)


POOLS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {
    "cls": _cls,
    "lasttoken": _last,
    "max": _maximum,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
}


def saturate(module: SpladePooling, logits: Tensor) -> Tensor:
    """``log1p(relu(logits))``, with the logarithm taken twice where the module says so; rises with the logits."""
    weights = logits.relu().log1p()
    return weights.log1p() if module.doubled else weights


def splade(module: SpladePooling, logits: Tensor, mask: Tensor) -> Tensor:
    """Logits [n, t, V] under a mask [n, t] as weights [n, V].

    The maximum goes first, for the saturation rises with its argument: the result is the same and the logits are read once.
    """
    if module.summed:
        return (saturate(module, logits) * mask[:, :, None].to(logits.dtype)).sum(dim=1)
    return saturate(module, logits.masked_fill(mask[:, :, None] == 0, float("-inf")).amax(dim=1))


def vocabulary_blocks(weight: Tensor, *, pack: bool) -> list[Linear]:
    """A vocabulary matrix [V, d] in blocks of rows, each ready for products."""
    starts = range(0, weight.shape[0], VOCABULARY_BLOCK)
    return [Linear(weight[start : start + VOCABULARY_BLOCK], None, pack=pack) for start in starts]


def splade_from_hidden(
    module: SpladePooling, hidden: Tensor, mask: Tensor, blocks: Sequence[Linear], bias: Tensor
) -> Tensor:
    """The same from the states before the vocabulary matrix, [n, t, d], without ever holding all logits; ``bias`` is [V].

    For the maximum, padded states are replaced by their row's first real one, which changes no maximum, and the bias, the same for all
    tokens, is added after it.
    """
    result = hidden.new_empty((hidden.shape[0], bias.shape[0]))
    if not module.summed:
        hidden = torch.where(mask[:, :, None] == 0, _row(hidden, first_real(mask))[:, None, :], hidden)
    for start, block in zip(range(0, bias.shape[0], VOCABULARY_BLOCK), blocks, strict=True):
        columns = slice(start, start + VOCABULARY_BLOCK)
        logits = block(hidden)
        if module.summed:
            result[:, columns] = splade(module, logits.add_(bias[columns]), mask)
        else:
            result[:, columns] = saturate(module, logits.amax(dim=1) + bias[columns])
    return result
