"""Search, paraphrase mining and community detection in memory, with the results of sentence-transformers 6.2.

Vectors may be of any type that :mod:`st_core.similarity` supports. Regardless of the chunk sizes, only one block of
scores is in memory. Results are sorted by descending score, and by ascending position for equal scores. NaN is treated
as the lowest score.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from st_core.similarity import (
    Score,
    SparseSides,
    cos_sim,
    dot_score,
    rows_of,
    sides_of,
    unit_rows,
)
from st_core.sparse_rows import BLOCK, Postings, SparseRows, shared_sums
from st_core.tensors import is_tensor, numpy_of
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["community_detection", "paraphrase_mining", "paraphrase_mining_embeddings", "semantic_search"]

TALL = 512
"""The maximum number of queries per block.

With more queries, a block of BLOCK scores would have so few columns that most of them would have to be kept.
"""

Batch: TypeAlias = Any
"""Vectors as an array, a tensor, a scipy matrix, SparseRows or a SparseMatrix, whose rows can be sliced."""

Scorer = Callable[[Batch], "NDArray[np.float32]"]
"""A function from queries to their scores [queries, block] for one block of the corpus."""


def semantic_search(  # noqa: PLR0917 -- sentence-transformers' signature
    query_embeddings: object,
    corpus_embeddings: object,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Score = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """Return, for each query, the ``top_k`` nearest vectors of a corpus as dicts, best first.

    Each dict has a ``corpus_id`` and a ``score``. The chunk sizes are upper limits. ``score_function`` computes a
    matrix [queries, corpus] from two sets of vectors; a higher score means nearer.
    """
    sides = _Sides.of(query_embeddings, corpus_embeddings, score_function)
    hits: list[list[dict[str, int | float]]] = []
    for _, scores, ids in _nearest(sides, query_chunk_size, corpus_chunk_size, top_k):
        hits += [
            [{"corpus_id": position, "score": value} for position, value in zip(*row, strict=True)]
            for row in zip(ids.tolist(), scores.tolist(), strict=True)
        ]
    return hits


def paraphrase_mining(  # noqa: PLR0917 -- sentence-transformers' signature
    model: Any,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """Encode texts and return the result of :func:`paraphrase_mining_embeddings` for their vectors."""
    options = {"truncate_dim": truncate_dim, "prompt_name": prompt_name, "prompt": prompt}
    embeddings = model.encode(
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        **{name: value for name, value in options.items() if value is not None},
    )
    return paraphrase_mining_embeddings(
        embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
    )


def paraphrase_mining_embeddings(  # noqa: PLR0917 -- sentence-transformers' signature
    embeddings: object,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = cos_sim,
) -> list[list[float | int]]:
    """Return the nearest pairs of vectors as lists ``[score, i, j]`` with i < j, best first.

    At most ``top_k`` pairs are considered for each vector, and at most ``max_pairs`` pairs are returned.
    ``score_function`` must be symmetric, because one score per pair is used.
    """
    sides = _Sides.of(embeddings, embeddings, score_function)
    pairs = _Pairs.none()
    for start, scores, ids in _nearest(sides, query_chunk_size, corpus_chunk_size, top_k + 1):
        mine = np.broadcast_to(np.arange(start, start + len(ids))[:, None], ids.shape)
        others = ids != mine
        counted = others & (np.cumsum(others, axis=1) <= top_k)
        low, high = np.minimum(mine, ids)[counted], np.maximum(mine, ids)[counted]
        pairs = pairs.joined(scores[counted], low, high).best(max_pairs)
    return [[score, i, j] for score, i, j in zip(*(part.tolist() for part in pairs.sorted()), strict=True)]


def community_detection(
    embeddings: object,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Return groups of at least ``min_community_size`` vectors, largest group first, as lists of positions.

    A group consists of the vectors whose cosine with a central vector is at least ``threshold``; the central vector
    comes first. A vector that belongs to two groups is in the larger group only. To save memory, neighbours are not
    stored: scores are computed once to count the neighbours, and once more for possible central vectors.
    """
    sides = _Sides.of(embeddings, embeddings, cos_sim)
    if sides.size < max(1, min_community_size):
        return []
    limit = np.float32(threshold)
    counts = np.zeros(sides.size, np.int64)
    height = max(1, min(batch_size, sides.size))
    scorers = sides.scorers(max(1, BLOCK // height))
    for start, queries in _tracked(sides.queries_in(height), -(-sides.size // height), shown=show_progress_bar):
        counts[start : start + height] = sum((score(queries) >= limit).sum(axis=1) for _, score in scorers)
    order = np.argsort(-counts, kind="stable")
    centres = order[counts[order] >= min_community_size]
    return sorted(_communities(sides, centres, limit, min_community_size), key=len, reverse=True)


def _communities(sides: _Sides, centres: NDArray[np.int64], limit: np.float32, least: int) -> Iterator[list[int]]:
    """Yield the communities of the centres, in order; members of earlier communities are left out."""
    taken = np.zeros(sides.size, np.bool_)
    height = max(1, BLOCK // sides.size)
    while centres.size:
        block = centres[:height]
        for centre, scores in zip(block.tolist(), sides.whole_rows(block), strict=True):
            if taken[centre]:
                continue
            free = np.flatnonzero((scores >= limit) & ~taken)
            if free.size >= least:
                members = free[np.argsort(-scores[free], kind="stable")]
                community = [centre, *members[members != centre].tolist()]
                taken[community] = True
                yield community
        centres = centres[height:]
        centres = centres[~taken[centres]]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of positions ``low`` and ``high``, where low < high, and their scores; all arrays are [n]."""

    scores: NDArray[np.float32]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @classmethod
    def none(cls) -> _Pairs:
        return cls(np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))

    def joined(self, scores: NDArray[np.float32], low: NDArray[np.int64], high: NDArray[np.int64]) -> _Pairs:
        """Return these pairs together with others; a pair that occurs twice keeps its first score."""
        lows, highs = np.concatenate([self.low, low]), np.concatenate([self.high, high])
        _, first = np.unique(lows * (1 + highs.max(initial=0)) + highs, return_index=True)
        return _Pairs(np.concatenate([self.scores, scores])[first], lows[first], highs[first])

    def best(self, count: int) -> _Pairs:
        """Return the ``count`` pairs with the highest scores."""
        if self.scores.size <= count:
            return self
        best = columns_of_best(self.scores[None, :], count)[0]
        return _Pairs(self.scores[best], self.low[best], self.high[best])

    def sorted(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Return scores and positions, best first; pairs with equal scores are in the order of their positions."""
        order = np.lexsort((self.high, self.low, -self.scores))
        return self.scores[order], self.low[order], self.high[order]


@dataclass(frozen=True, slots=True)
class _Sides:
    """Two sets of vectors that are prepared once and then scored in blocks.

    ``score`` is None for inner products and for cosines, which are computed as inner products of unit vectors. To avoid
    a copy of a dense corpus, its rows are not scaled to unit length; instead, ``scales`` contains the reciprocals of
    their lengths for cosines. It is None otherwise.
    """

    queries: Batch
    corpus: Batch
    scales: NDArray[np.floating] | None
    score: Score | None

    @classmethod
    def of(cls, queries: object, corpus: object, score: Score) -> _Sides:
        if score is not cos_sim and score is not dot_score:
            return cls(_batch(queries), _batch(corpus), None, score)
        sides = sides_of(queries, corpus)
        if score is dot_score:
            return cls(sides.left, sides.right, None, None)
        if isinstance(sides, SparseSides):
            return cls(sides.left.unit(), sides.right.unit(), None, None)
        scales = 1 / np.maximum(np.linalg.norm(sides.right, axis=1), 1e-12)
        return cls(unit_rows(sides.left), sides.right, scales, None)

    @property
    def size(self) -> int:
        """The number of vectors of the corpus."""
        return _count(self.corpus)

    def queries_in(self, height: int) -> Iterator[tuple[int, Batch]]:
        """Return the queries in blocks of ``height`` rows, each as (position of the first query, queries)."""
        return ((start, _cut(self.queries, start, stop)) for start, stop in _spans(_count(self.queries), height))

    def scorers(self, width: int) -> list[tuple[int, Scorer]]:
        """Return a scorer for each block of ``width`` vectors of the corpus, as (position of the first vector, scorer).

        The last block may be smaller.
        """
        return [(start, self._scorer(start, stop)) for start, stop in _spans(self.size, width)]

    def whole_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of the queries at some positions for the entire corpus [rows, corpus]."""
        queries = self.queries.take(rows) if isinstance(self.queries, SparseRows) else self.queries[rows]
        return self._scorer(0, self.size)(queries)

    def _scorer(self, start: int, stop: int) -> Scorer:
        """Return the scorer of one block of the corpus."""
        block = _cut(self.corpus, start, stop)
        if self.score is not None:
            function = self.score
            return lambda queries: _scores(function(queries, block))
        if isinstance(block, SparseRows):
            postings = Postings.of(block)
            return lambda queries: _scores(
                np.concatenate([part for _, part in shared_sums(queries, postings, np.multiply)])
            )
        scales = 1 if self.scales is None else self.scales[start:stop]
        return lambda queries: _scores((queries @ block.T) * scales)


def _nearest(
    sides: _Sides, height: int, width: int, top_k: int
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int64]]]:
    """Yield, for each block of queries, the position of the first query, and scores and positions of the best vectors.

    Scores and positions are [queries, k], best first. ``height`` and ``width`` limit the size of a block.
    """
    if top_k < 1:
        raise ValueError(f"expected top_k of at least 1, got {top_k}")
    height = max(1, min(height, TALL, _count(sides.queries), BLOCK // min(top_k, max(1, sides.size))))
    scorers = sides.scorers(max(1, min(width, BLOCK // height)))
    for top, queries in sides.queries_in(height):
        scores = np.empty((_count(queries), 0), np.float32)
        ids = np.empty(scores.shape, np.int64)
        for start, score in scorers:
            block = score(queries)
            columns = columns_of_best(block, top_k)
            scores = np.concatenate([scores, np.take_along_axis(block, columns, axis=1)], axis=1)
            ids = np.concatenate([ids, columns + start], axis=1)
            best = columns_of_best(scores, top_k)
            scores, ids = np.take_along_axis(scores, best, axis=1), np.take_along_axis(ids, best, axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        yield top, np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def columns_of_best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the columns of the ``count`` highest scores of each row, in ascending order [rows, count].

    Among equal scores, the first columns are chosen.
    """
    rows, width = scores.shape
    if width <= count:
        return np.broadcast_to(np.arange(width), scores.shape)
    least = np.partition(scores, width - count, axis=1)[:, width - count, None]
    best = scores >= least
    tied = np.flatnonzero(best.sum(axis=1) > count)
    if tied.size:
        above, equal = scores[tied] > least[tied], scores[tied] == least[tied]
        room = count - above.sum(axis=1, keepdims=True)
        best[tied] = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(best)[1].reshape(rows, count)


def _scores(raw: object) -> NDArray[np.float32]:
    """Return an array or a tensor of scores as a float32 array, with NaN replaced by minus infinity."""
    scores = (numpy_of(raw) if is_tensor(raw) else np.asarray(raw)).astype(np.float32, copy=False)
    unknown = np.isnan(scores)
    return np.where(unknown, np.float32(-np.inf), scores) if unknown.any() else scores


def _batch(vectors: object) -> Batch:
    """Return vectors as a type whose rows can be sliced.

    Where possible the type is not changed, because a score function may expect it.
    """
    if isinstance(vectors, SparseMatrix):
        return vectors
    if hasattr(vectors, "tocsr"):
        return vectors.tocsr()
    if is_tensor(vectors):
        return vectors if vectors.dim() > 1 else vectors.unsqueeze(0)
    return rows_of(vectors)


def _count(vectors: Batch) -> int:
    """Return the number of rows."""
    if isinstance(vectors, SparseRows):
        return len(vectors)
    return int(vectors.shape[0])


def _cut(vectors: Batch, start: int, stop: int) -> Batch:
    """Return the rows from ``start`` to ``stop``, as a view of the same memory where possible."""
    if isinstance(vectors, SparseRows):
        return vectors.slice(start, stop)
    if is_tensor(vectors) and vectors.is_sparse:
        torch = sys.modules["torch"]
        return vectors.index_select(0, torch.arange(start, stop, device=vectors.device))
    return vectors[start:stop]


def _spans(count: int, width: int) -> Iterator[tuple[int, int]]:
    """Return spans (start, stop) of at most ``width`` rows that cover ``count`` rows."""
    return ((start, min(start + width, count)) for start in range(0, count, width))


def _tracked(blocks: Iterator[tuple[int, Batch]], total: int, *, shown: bool) -> Iterator[tuple[int, Batch]]:
    """Return the blocks unchanged; with ``shown``, a progress bar on standard error shows how many are processed."""
    if not shown:
        return blocks
    from rich.console import Console
    from rich.progress import track

    return iter(track(blocks, "Comparing", total=total, console=Console(stderr=True)))
