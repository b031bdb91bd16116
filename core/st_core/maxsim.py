"""Score texts by MaxSim: the sum, over the vectors of a query, of the largest inner product with a document's vectors.

Each text has one vector per token. A set of texts is a tensor or an array [texts, tokens, d] padded with zeros, a list
of matrices [tokens, d], or one matrix [tokens, d]. Masks [texts, tokens] have 0 where a token does not count. Scores
are float32 tensors on the device of the documents, with gradients. torch is imported when a function is called.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from st_core.tensors import as_tensor, is_tensor

if TYPE_CHECKING:
    import torch

__all__ = ["maxsim", "maxsim_pairwise", "mean_maxsim", "mean_maxsim_pairwise"]

log = logging.getLogger(__name__)

BUDGET = 100_000_000
"""The default for ``chunk_elements``: 400 MB of float32."""

EMPTY = -1e9
"""The score of a document without tokens: below every other score, and finite so that losses stay finite."""


def maxsim(  # noqa: PLR0917 -- sentence-transformers' signature
    a: object,
    b: object,
    a_mask: object = None,
    b_mask: object = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Return the scores of all pairs of queries and documents [a, b].

    ``chunk_elements`` limits the number of values in memory at a time; one pair may exceed it. ``length_normalize``
    divides the score by the number of the query's tokens. ``device`` is where scores are computed. A document without
    tokens has the score -1e9, with a warning. Raises ValueError for a mask of another width than the texts.
    """
    import torch

    queries, documents = Texts.of(a, a_mask, "a_mask"), Texts.of(b, b_mask, "b_mask")
    where = documents.device or queries.device or torch.device("cpu")
    if not queries.widths or not documents.widths:
        return torch.zeros(len(queries.widths), len(documents.widths), device=where)
    budget = BUDGET if chunk_elements is None else chunk_elements
    width, dim = max(documents.widths), documents.dim
    blocks = []
    for span in _spans(queries.widths, width + dim, 0, budget - width * dim):
        left = queries.padded(span, device or where)
        size = left.rows.shape[0] * left.rows.shape[1]
        spans = _spans(documents.widths, size + dim, 0, budget - left.rows.numel())
        parts = (_scores("ash,bth->abst", left, documents.padded(each, device or where)) for each in spans)
        block = torch.cat([part.to(where) for part in parts], dim=1)
        blocks.append(_finished(block, left.mask, mean=length_normalize))
    return torch.cat(blocks)


def maxsim_pairwise(  # noqa: PLR0917 -- sentence-transformers' signature
    a: object,
    b: object,
    a_mask: object = None,
    b_mask: object = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Return the scores [n] of the query and the document at each position; the arguments are those of :func:`maxsim`.

    Raises ValueError for different numbers of queries and documents.
    """
    import torch

    queries, documents = Texts.of(a, a_mask, "a_mask"), Texts.of(b, b_mask, "b_mask")
    if len(queries.widths) != len(documents.widths):
        raise ValueError(
            f"expected the same number of items on both sides, got {len(queries.widths)} and {len(documents.widths)}"
        )
    where = documents.device or queries.device or torch.device("cpu")
    if not queries.widths:
        return torch.zeros(0, device=where)
    budget = BUDGET if chunk_elements is None else chunk_elements
    width, dim = max(queries.widths), documents.dim
    parts = []
    for span in _spans(documents.widths, width + dim, width * dim, budget):
        left, right = (side.padded(span, device or where) for side in (queries, documents))
        scores = _scores("bsh,bth->bst", left, right).to(where)
        parts.append(_finished(scores, left.mask, mean=length_normalize))
    return torch.cat(parts)


def mean_maxsim(  # noqa: PLR0917 -- sentence-transformers' signature
    a: object,
    b: object,
    a_mask: object = None,
    b_mask: object = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Return :func:`maxsim` divided by the number of the query's tokens, so that queries can be compared."""
    return maxsim(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def mean_maxsim_pairwise(  # noqa: PLR0917 -- sentence-transformers' signature
    a: object,
    b: object,
    a_mask: object = None,
    b_mask: object = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Return :func:`maxsim_pairwise` divided by the number of the query's tokens."""
    return maxsim_pairwise(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


class Padded(NamedTuple):
    """Texts of equal width: their vectors [texts, tokens, d] and the mask of their tokens [texts, tokens]."""

    rows: torch.Tensor
    mask: torch.Tensor


class Texts(NamedTuple):
    """The texts of one side, their numbers of tokens, the caller's mask [texts, tokens], if any, and their device.

    Arrays have no device.
    """

    rows: torch.Tensor | list[torch.Tensor]
    widths: list[int]
    mask: torch.Tensor | None
    device: torch.device | None

    @classmethod
    def of(cls, rows: object, mask: object, name: str) -> Texts:
        """Return a set of texts; ``name`` is that of the mask in errors."""
        known = _mask(mask, name)
        first = rows[0] if isinstance(rows, list | tuple) and rows else rows
        device = first.device if is_tensor(first) else None
        texts: torch.Tensor | list[torch.Tensor]
        if isinstance(rows, list | tuple):
            texts = [as_tensor(each) for each in rows]
            widths = [each.shape[0] for each in texts]
        else:
            tensor = as_tensor(rows)
            texts = tensor[None] if tensor.ndim == 2 else tensor
            widths = [texts.shape[1]] * texts.shape[0]
        if known is None or not widths:
            return cls(texts, widths, None, device)
        known = known[None] if known.ndim == 1 else known
        if known.shape[-1] != max(widths):
            raise ValueError(f"{name} covers {known.shape[-1]} tokens; expected {max(widths)}, the width of the texts")
        return cls(texts, widths, known.expand(len(widths), -1), device)

    @property
    def dim(self) -> int:
        """The width of the vectors."""
        return int(self.rows[0].shape[-1])

    def padded(self, span: slice, device: str | torch.device) -> Padded:
        """Return some of the texts as floats on a device, padded to the longest of them and to at least one token."""
        import torch
        from torch.nn.functional import pad

        width = max(self.widths[span])
        if not isinstance(self.rows, list):
            rows = self.rows[span]
            mask = rows.any(dim=-1)
        else:
            rows = torch.nn.utils.rnn.pad_sequence(self.rows[span], batch_first=True)
            counts = torch.tensor(self.widths[span], device=rows.device)
            mask = torch.arange(width, device=rows.device) < counts[:, None]
        rows = (rows if rows.is_floating_point() else rows.float()).to(device)
        mask = (mask if self.mask is None else self.mask[span, :width]).to(device)
        return Padded(rows, mask) if width else Padded(pad(rows, (0, 0, 0, 1)), pad(mask, (0, 1)))


def _mask(mask: object, name: str) -> torch.Tensor | None:
    """Return a mask, or a list of the masks of the texts, as a tensor; None for None."""
    import torch

    if isinstance(mask, list | tuple):
        return torch.nn.utils.rnn.pad_sequence([as_tensor(each) for each in mask], batch_first=True)
    if mask is None or is_tensor(mask):
        return mask
    if isinstance(mask, np.ndarray):
        return as_tensor(mask)
    raise TypeError(f"expected {name} as a tensor, an array or a list of masks, got {type(mask).__name__}")


def _spans(widths: Sequence[int], per_token: int, per_text: int, budget: int) -> Iterator[slice]:
    """Yield spans of texts; padded to the longest of its texts, no span of two or more texts exceeds the budget.

    A text takes ``per_token`` values for each token of the padded width, and ``per_text`` values more.
    """
    start = widest = 0
    for position, width in enumerate(widths):
        wider = max(widest, width)
        if position > start and (per_token * wider + per_text) * (position - start + 1) > budget:
            yield slice(start, position)
            start, wider = position, width
        widest = wider
    yield slice(start, len(widths))


def _scores(equation: str, queries: Padded, documents: Padded) -> torch.Tensor:
    """Return the scores of all pairs [a, b], or of pairs by position [b], depending on the equation.

    Maxima are summed in float32, because sums in half precision make unequal documents equal.
    """
    import torch

    tokens = torch.promote_types(queries.rows.dtype, documents.rows.dtype)
    products = torch.einsum(equation, queries.rows.to(tokens), documents.rows.to(tokens))
    known, counted = documents.mask.bool(), queries.mask
    if products.ndim == 4:
        known, counted = known[None], counted[:, None]
    products.masked_fill_(~known[..., None, :], torch.finfo(tokens).min)
    scores = (products.max(dim=-1).values.float() * counted).sum(dim=-1)
    return scores.masked_fill(~known.any(dim=-1), EMPTY)


def _finished(scores: torch.Tensor, mask: torch.Tensor, *, mean: bool) -> torch.Tensor:
    """Return the scores of queries [a, …] with a warning on a CPU for documents without tokens.

    With ``mean``, scores are divided by the numbers of the queries' tokens in the mask [a, tokens].
    """
    import torch

    if scores.device.type == "cpu" and not torch.compiler.is_compiling() and bool((scores == EMPTY).any()):
        log.warning(
            "a document without tokens has the score %.0e, below all others; it is empty, or its model's "
            "keep_only_token_ids or skiplist_words masked all of its tokens",
            EMPTY,
        )
    if not mean:
        return scores
    counts = mask.bool().sum(dim=-1).clamp(min=1).to(scores.device)
    return scores / (counts[:, None] if scores.ndim == 2 else counts)
