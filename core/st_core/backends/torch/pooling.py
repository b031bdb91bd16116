"""Pooling formulas of the torch backend as pure functions on tensors.

They decide which tokens count and combine token vectors into one vector per text. The runner calls them, the export
trace records them, and they are differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from st_core.modules.pooling import Pooling
    from st_core.modules.splade_pooling import SpladePooling

__all__ = [
    "POOLS",
    "VOCABULARY_BLOCK",
    "attended",
    "first_real",
    "pool",
    "position_ids",
    "saturate",
    "splade",
    "splade_from_hidden",
    "without_prompt",
]

VOCABULARY_BLOCK = 4_096
"""Number of columns of the vocabulary logits that are computed at a time."""


def attended(mask: Tensor, *, pad_left: bool) -> Tensor:
    """Return a mask [n, t] in which a text without tokens attends to one padding token.

    A tokenizer without special tokens produces no tokens for an empty text, and attention over no tokens is NaN. In
    other texts the position at that edge is a token already, so their rows do not change.
    """
    edge = torch.ones_like(mask[:, :1])
    return torch.cat([mask[:, :-1], edge] if pad_left else [edge, mask[:, 1:]], dim=1)


def position_ids(mask: Tensor) -> Tensor:
    """Return position ids [n, t] counted from each row's first token, so that padding on the left is not counted."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def first_real(mask: Tensor) -> Tensor:
    """Return the position [n] of the first token that is not padding in each row of a mask [n, t]."""
    return mask.to(torch.int32).argmax(dim=1)


def without_prompt(mask: Tensor, prompt_length: int | Tensor) -> Tensor:
    """Return the mask [n, t] without the first ``prompt_length`` tokens of each row.

    ``prompt_length`` is one number for all rows, a tensor [1], or a tensor [n].
    """
    positions = torch.arange(mask.shape[1], device=mask.device)[None, :]
    return mask * (positions >= (first_real(mask) + prompt_length)[:, None])


def pool(
    module: Pooling,
    vectors: Tensor,
    mask: Tensor,
    prompt_length: int | Tensor | None = None,
    total: Tensor | None = None,
) -> Tensor:
    """Pool token vectors [n, t, d] under a mask [n, t] to one vector per row [n, modes * d].

    ``prompt_length`` is the number of leading tokens that belong to the prompt. Half-precision vectors are summed in
    float32. ``total`` [n] replaces the sum of weights as the divisor of means.
    """
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
    """Return the weighted sum [n, d] of vectors [n, t, d] for weights [n, t]."""
    return torch.einsum("nt,ntd->nd", weights.to(vectors.dtype), vectors)


def _divisor(weights: Tensor, vectors: Tensor, total: Tensor | None) -> Tensor:
    """Return the divisor [n, 1] of means: ``total`` [n] if vectors are weighted already, else the sum of weights."""
    divisor = weights.to(vectors.dtype).sum(dim=1) if total is None else total.to(vectors.dtype)
    return divisor[:, None].clamp(min=1e-9)


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
"""Pooling modes: functions of vectors, mask of counted tokens, mask of all tokens and divisor of means."""


def saturate(module: SpladePooling, logits: Tensor) -> Tensor:
    """Return ``log1p(relu(logits))``, to which ``doubled`` applies log1p again; the function is monotonic."""
    weights = logits.relu().log1p()
    return weights.log1p() if module.doubled else weights


def splade(module: SpladePooling, logits: Tensor, mask: Tensor) -> Tensor:
    """Pool logits [n, t, V] under a mask [n, t] to weights [n, V].

    The maximum is taken before the saturation, which is monotonic: the result is the same, and the logits are read only
    once.
    """
    if module.summed:
        return (saturate(module, logits) * mask[:, :, None].to(logits.dtype)).sum(dim=1)
    return saturate(module, logits.masked_fill(mask[:, :, None] == 0, float("-inf")).amax(dim=1))


def splade_from_hidden(
    module: SpladePooling, hidden: Tensor, mask: Tensor, blocks: Sequence[Callable[[Tensor], Tensor]], bias: Tensor
) -> Tensor:
    """Pool the states [n, t, d] before the vocabulary matrix like :func:`splade`, without storing all logits at once.

    Each of ``blocks`` is a product with ``VOCABULARY_BLOCK`` rows of that matrix; ``bias`` is [V]. For the maximum,
    states of padding are replaced by the first token's state in their row, which does not change a maximum, and the
    bias, which is the same for all tokens, is added afterwards. A text without tokens gets zeros.
    """
    if not module.summed:
        hidden = torch.where(mask[:, :, None] == 0, _row(hidden, first_real(mask))[:, None, :], hidden)
    parts = []
    for start, block in zip(range(0, bias.shape[0], VOCABULARY_BLOCK), blocks, strict=True):
        offset = bias[start : start + VOCABULARY_BLOCK]
        logits = block(hidden)
        if module.summed:
            parts.append(splade(module, logits.add_(offset), mask))
        else:
            parts.append(saturate(module, logits.amax(dim=1) + offset))
    return torch.cat(parts, dim=1).mul_(mask.any(dim=1, keepdim=True))
