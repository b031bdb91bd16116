"""Compute sparse vectors from tables of token weights, for batches and, with fewer arrays, for single texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules.bm25 import BM25, Saturation
from st_core.modules.sparse_static_embedding import SparseStaticEmbedding
from st_core.text.tokens import TextTokenizer
from st_core.vectors import MIN_WEIGHT, SparseMatrix, SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.modules import Module

__all__ = ["OneText", "one_text", "weigh_terms", "weigh_tokens"]

Ids = Sequence["NDArray[np.int32]"]
"""Token ids of each text."""


def weigh_tokens(module: SparseStaticEmbedding, rows: Ids) -> SparseMatrix:
    """Return the weight of each distinct token of each text [n, V]; weights that are not positive are dropped."""
    width = module.weight.size
    owners, ids = _flat(rows)
    cells = np.unique(owners * width + ids)
    values = module.weight[cells % width]
    keep = np.isfinite(values) & (values >= MIN_WEIGHT)
    return _matrix(cells[keep], values[keep], len(rows), width)


def weigh_terms(module: BM25, rows: Ids) -> SparseMatrix:
    """Return the weights of the terms of each text [n, V], from token ids in any order; no terms give an empty row."""
    width = module.term.size
    owners, ids = _flat(rows)
    terms = module.term[ids].astype(np.int64)
    owners, terms = owners[terms >= 0], terms[terms >= 0]
    cells, counts = np.unique(owners * width + terms, return_counts=True)
    if module.idf is not None:
        values = module.idf[cells % width] * counts.astype(np.float32)
        return _matrix(cells[values > 0], values[values > 0], len(rows), width)
    lengths = np.bincount(owners, minlength=len(rows))
    values = _saturate(module.saturation, counts, lengths[cells // width]).astype(np.float32)
    return _matrix(cells, values, len(rows), width)


def _saturate(
    saturation: Saturation | None, counts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    if saturation is None:
        raise ModelBroken("a half of BM25 needs an idf or a saturation")
    k1, b = saturation.k1, saturation.b
    norm = k1 * (1 - b + b * lengths / saturation.average_length)
    return np.asarray(counts * (k1 + 1) / (counts + norm), np.float64)


def _flat(rows: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for every token of a batch, the index of its text and its id."""
    lengths = np.fromiter((row.size for row in rows), np.int64, len(rows))
    owners = np.repeat(np.arange(len(rows), dtype=np.int64), lengths)
    return owners, np.concatenate([*rows, np.empty(0, np.int32)]).astype(np.int64)


def _matrix(cells: NDArray[np.int64], values: NDArray[np.float32], rows: int, width: int) -> SparseMatrix:
    """Return the matrix for increasing cell numbers ``row * width + column`` and their values."""
    owners, columns = np.divmod(cells, width)
    indptr = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=rows), out=indptr[1:])
    return SparseMatrix(indptr, columns.astype(np.uint32), values, (rows, width))


class OneText:
    """Encodes one text at a time with a table of weights, with the results of :func:`weigh_tokens` or a BM25 query.

    ``tokenizer`` adds no special tokens. ``weight`` float32 [V] is the weight of each token, or of each occurrence of a
    term where ``term`` [V] maps tokens to terms.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        weight: NDArray[np.float32],
        term: NDArray[np.int32] | None = None,
        *,
        max_length: int | None = None,
    ) -> None:
        """Collect the tokens without a positive weight; ``max_length`` is only stored."""
        self.tokenizer, self.weight, self.max_length = tokenizer, weight, max_length
        self.term = None if term is None else term.tolist()
        weightless = np.flatnonzero(~(np.isfinite(weight) & (weight >= MIN_WEIGHT))).tolist()
        self.dropped = frozenset((-1, *weightless))
        self._numbers = np.arange(weight.size, dtype=np.uint32)
        self._tokenize = tokenizer.bare if tokenizer.words is None else tokenizer.words.ids

    def __call__(self, text: str, limit: int | None) -> SparseVector:
        """Return the sparse vector of a text; at most ``limit`` tokens are read, all if None."""
        ids = self._tokenize(text)
        if ids is None:
            ids = self.tokenizer.bare(text)
        if limit is not None and len(ids) > limit:
            ids = ids[:limit] if self.tokenizer.keep_left else ids[len(ids) - limit :]
        listed = ids if self.term is None else list(map(self.term.__getitem__, ids))
        terms = set(listed)
        repeats = self.term is not None and len(terms) < len(listed)
        if not terms.isdisjoint(self.dropped):
            terms -= self.dropped
        ordered = sorted(terms)
        indices = np.array(ordered, np.intp)  # numpy indexes fastest with this type
        values = self.weight[indices]
        if repeats:
            counts = Counter(listed)
            values *= np.array([counts[term] for term in ordered], np.float32)
        return SparseVector.trusted(self._numbers[indices], values)  # a table is faster than astype


def one_text(modules: Sequence[Module]) -> OneText | None:
    """Return a function that encodes single texts, for a stack that is one table of weights; None for other stacks."""
    first, *rest = modules
    if rest:
        return None
    if isinstance(first, SparseStaticEmbedding):
        return OneText(first.tokenizer, first.weight, max_length=first.max_length)
    if isinstance(first, BM25) and first.idf is not None:
        return OneText(first.tokenizer, first.idf, first.term, max_length=first.max_length)
    return None
