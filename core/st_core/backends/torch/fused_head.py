"""The vocabulary product of a SPLADE model and the maximum over its tokens as one operation with gradients.

Of the logits only the maxima and their positions are stored, and the backward pass goes through the maxima alone. The
values are those of the product and the maximum one after the other. A step of a model of two layers with 128 dimensions
and 30,522 terms, on 16 pairs of texts, takes 1.0 s of one core in place of 4.1.

On the CPU only tokens are computed, not padding. On a CPU with AMX a product in bfloat16 first finds the terms that can
have a weight above zero, and only those are computed in float32; see :class:`Screen`. That takes a fifth off
the forward pass of a SPLADE model of DistilBERT's size with some 270 active terms: 1.04 in place of 1.34 s on two
cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.torch.pooling import VOCABULARY_BLOCK, first_real, saturate
from st_core.backends.torch.shared_embedding import sparse_gradient
from st_core.modules.splade_pooling import SpladePooling

__all__ = ["FusedHead", "Screen", "fused_head", "has_matrix_unit", "max_product"]

ROWS = 128
"""Products in bfloat16 have a multiple of this number of rows. oneDNN 3.13 stores a program of some 2.5 MB for each
number of rows, up to 1,024 of them."""

DENSE = 0.5
"""If more than this share of the terms can have a weight, all are computed in float32."""


def has_matrix_unit() -> bool:
    """Return whether the CPU has AMX, which multiplies bfloat16 two to four times as fast as AVX-512 does float32.

    The instructions of AVX-512 for bfloat16 alone are slower than those for float32 (oneDNN 3.13).
    """
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)  # torch 2.6 has no public name for it
    return bool(has_amx()) and bool(getattr(torch.backends.mkldnn, "enabled", True))


@dataclass(frozen=True, slots=True)
class Screen:
    """Finds the terms that can have a logit above zero, from a copy of the matrix in bfloat16.

    Rounding to the 8 significant bits of bfloat16 changes a number by at most 2⁻⁸ of itself, a vector w by at most 2⁻⁸
    of its norm. By the inequality of Cauchy and Schwarz, the product of the rounded vectors x' and w' differs from that
    of x and w by at most |x - x'|·|w| + 2⁻⁸·|x'|·|w|. The sum of d numbers in float32 and the rounding of the result
    are accounted for too. Unless squares of the numbers underflow in float32, no logit above zero is missed.
    """

    weight: Tensor
    """The matrix [V, d] in bfloat16."""
    norms: Tensor
    """The norms [V] of its rows."""
    bias: Tensor
    """What is added to the logits [V]."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> Screen:
        """Return the screen of a matrix [V, d] and a bias [V]."""
        weight = weight.detach()
        offset = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        return cls(weight.bfloat16(), torch.linalg.vector_norm(weight, dim=1), offset)

    def terms(self, states: Tensor) -> Tensor | None:
        """Return the terms [m] that some of the states [tokens, d] need, in order; None if they are most of the terms.

        A term with a logit that is not a number is needed.
        """
        narrow = states.bfloat16()
        wide = narrow.to(states.dtype)
        change = torch.linalg.vector_norm(states - wide, dim=1)
        error = (change + (2**-8 + states.shape[1] * 2**-22) * torch.linalg.vector_norm(wide, dim=1)).max()
        padded = functional.pad(narrow, (0, 0, 0, -len(states) % ROWS))
        found, count = [], 0
        for start in range(0, len(self.weight), VOCABULARY_BLOCK):
            part = slice(start, start + VOCABULARY_BLOCK)
            maxima = torch.matmul(padded, self.weight[part].T)[: len(states)].amax(dim=0).float()
            bound = maxima + maxima.abs() * (2**-8 + 2**-15) + error * self.norms[part] + self.bias[part]
            found.append((~(bound <= 0)).nonzero()[:, 0] + start)
            count += len(found[-1])
            if count > DENSE * len(self.weight):
                return None
        return torch.cat(found)


def _padded_maxima(states: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima [n, V] over the tokens of states [n, t, d], and the rows of tokens in states [n * t, d]."""
    maxima = states.new_empty(states.shape[0], weight.shape[0])
    places = torch.empty(maxima.shape, dtype=torch.int32, device=states.device)
    for start in range(0, weight.shape[0], VOCABULARY_BLOCK):
        part = slice(start, start + VOCABULARY_BLOCK)
        values, indices = torch.matmul(states, weight[part].T).max(dim=1)
        maxima[:, part], places[:, part] = values, indices
    rows, width, _ = states.shape
    first = torch.arange(0, rows * width, width, dtype=torch.int32, device=states.device)
    return maxima, places + first[:, None]


def _packed_maxima(states: Tensor, weight: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the maxima [n, V] over the tokens of texts, whose states [tokens, d] follow each other, and their rows."""
    maxima = states.new_empty(len(lengths), weight.shape[0])
    places = torch.empty(maxima.shape, dtype=torch.int32)
    for start in range(0, weight.shape[0], VOCABULARY_BLOCK):
        part = slice(start, start + VOCABULARY_BLOCK)
        row = 0
        for text, logits in enumerate(torch.split(torch.matmul(states, weight[part].T), list(lengths))):
            values, indices = logits.max(dim=0)
            maxima[text, part], places[text, part] = values, indices + row
            row += len(logits)
    return maxima, places


def _screened_maxima(states: Tensor, weight: Tensor, lengths: Sequence[int], screen: Screen) -> tuple[Tensor, Tensor]:
    """Return what :func:`_packed_maxima` does, with -inf for terms that have no logit above zero in any text."""
    terms = screen.terms(states)
    if terms is None:
        return _packed_maxima(states, weight, lengths)
    maxima = states.new_full((len(lengths), len(weight)), float("-inf"))
    places = torch.zeros(maxima.shape, dtype=torch.int32)
    maxima[:, terms], places[:, terms] = _packed_maxima(states, weight[terms], lengths)
    return maxima, places


class _MaxProduct(torch.autograd.Function):
    """The maximum over the tokens of each text of the product of their states and a matrix [V, d]."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        lengths: Sequence[int] | None,
        screen: Screen | None,
        has_sparse_gradient: bool,
    ) -> Tensor:
        """Return the maxima [n, V]; logits are computed in blocks of the vocabulary."""
        if lengths is None:
            maxima, places = _padded_maxima(states, weight)
        elif screen is None:
            maxima, places = _packed_maxima(states, weight, lengths)
        else:
            maxima, places = _screened_maxima(states, weight, lengths, screen)
        ctx.save_for_backward(states, weight, places)
        ctx.has_sparse_gradient = has_sparse_gradient
        return maxima

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of states and matrix, as products with the gradients of the maxima that have one."""
        states, weight, places = ctx.saved_tensors
        gradient = gradients[0]
        rows, terms = gradient.nonzero(as_tuple=True)
        tokens = places[rows, terms].long()
        values, flat = gradient[rows, terms], states.reshape(-1, states.shape[-1])
        of_states = _product(tokens, terms, values, len(flat), weight).view_as(states)
        if not ctx.has_sparse_gradient:
            return of_states, _product(terms, tokens, values, len(weight), flat), None, None, None
        used, positions = torch.unique(terms, return_inverse=True)
        of_used = _product(positions, tokens, values, len(used), flat)
        return of_states, sparse_gradient(used, of_used, weight), None, None, None


def _product(rows: Tensor, columns: Tensor, values: Tensor, height: int, right: Tensor) -> Tensor:
    """Return the product [height, d] of a matrix with few values, at rows and columns, and the matrix ``right``."""
    left = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, (height, len(right)), check_invariants=False)
    result: Tensor = torch.sparse.mm(left, right)
    return result


def max_product(
    states: Tensor,
    weight: Tensor,
    lengths: Sequence[int] | None = None,
    *,
    screen: Screen | None = None,
    has_sparse_gradient: bool = False,
) -> Tensor:
    """Return the maximum over the tokens of each text [n, V] of the product of their states and a matrix [V, d].

    The states are [n, t, d], or with ``lengths`` [tokens, d] on the CPU: those of texts of these lengths, none of them
    zero, one after the other. With a ``screen``, which needs ``lengths``, maxima that are not above zero after adding
    its bias may be -inf. The result is in float32 for narrower types. With ``has_sparse_gradient`` the matrix must be
    one of ``accepting_sparse_gradients``.
    """
    with torch.autocast(states.device.type, enabled=False):
        dtype = torch.promote_types(states.dtype, torch.float32)
        is_sparse = has_sparse_gradient and weight.dtype == dtype  # torch cannot convert a sparse gradient
        result: Tensor = _MaxProduct.apply(states.to(dtype), weight.to(dtype), lengths, screen, is_sparse)
    return result


class _Decoder(nn.Linear):
    """A vocabulary product that can be left out, so that the model returns the states before it.

    Its matrix is read from ``shared`` while that is set: the result of ``accepting_sparse_gradients``. ``screen`` is
    that of the current matrix, or None.
    """

    is_left_out = False
    shared: Tensor | None = None
    screen: Screen | None = None

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits, or the states."""
        return states if self.is_left_out else functional.linear(states, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class FusedHead:
    """The vocabulary product of a masked language model."""

    decoder: _Decoder

    def states(self, compute: Any) -> Tensor:
        """Return what ``compute`` returns without the vocabulary product."""
        self.decoder.is_left_out = True
        try:
            states: Tensor = compute()
        finally:
            self.decoder.is_left_out = False
        return states

    def prepare(self) -> None:
        """Set the screen of the current matrix, where that saves time; the caller removes it."""
        weight = self.decoder.weight
        if weight.dtype == torch.float32 and has_matrix_unit():
            self.decoder.screen = Screen.of(weight, self.decoder.bias)

    def pooled(self, module: SpladePooling, states: Tensor, mask: Tensor) -> Tensor:
        """Return the term weights [n, V] of states [n, t, d]; a text without tokens gets zeros."""
        shared, bias = self.decoder.shared, self.decoder.bias
        weight = self.decoder.weight if shared is None else shared
        is_sparse = shared is not None
        if states.device.type == "cpu":
            is_token = mask != 0
            is_token[:, 0] |= ~is_token.any(dim=1)
            lengths, screen = is_token.sum(dim=1).tolist(), self.decoder.screen
            maxima = max_product(states[is_token], weight, lengths, screen=screen, has_sparse_gradient=is_sparse)
        else:
            first = states[torch.arange(len(states), device=states.device), first_real(mask)]
            states = torch.where(mask[:, :, None] == 0, first[:, None, :], states)
            maxima = max_product(states, weight, has_sparse_gradient=is_sparse)
        return saturate(module, maxima if bias is None else maxima + bias) * mask.any(dim=1, keepdim=True)


def fused_head(model: Any) -> FusedHead | None:
    """Return the vocabulary product of a masked language model; None where its logits are not one product.

    The parameters of the model and their names stay the same.
    """
    decoder: Any = model.get_output_embeddings()
    if type(decoder) is not nn.Linear:
        return None
    decoder.__class__ = _Decoder
    head = FusedHead(cast("_Decoder", decoder))
    if _is_one_product(model, head):
        return head
    decoder.__class__ = nn.Linear
    return None


def _is_one_product(model: Any, head: FusedHead) -> bool:
    """Return whether the logits of a few tokens are the states before the decoder, times its matrix, plus its bias."""
    probe = torch.tensor([[1, 2, 3, 4]], device=model.device)
    with torch.no_grad():
        expected = model(input_ids=probe)[0]
        states = head.states(lambda: model(input_ids=probe)[0])
        if states.shape[-1] != head.decoder.weight.shape[1]:
            return False
        found = functional.linear(states, head.decoder.weight, head.decoder.bias)
    return bool(torch.allclose(found, expected, atol=1e-4, rtol=1e-3))
