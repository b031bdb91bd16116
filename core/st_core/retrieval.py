"""Search, paraphrases and communities among vectors held in memory: the answers of sentence-transformers 6.2, block by block.

Vectors may be of any kind that :mod:`st_core.similarity` takes. No more than a block of scores is held at a time, whatever the chunk
sizes. Order is by falling score, equal scores by rising position; a score that is not a number counts as the lowest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.similarity import cos_sim, dot_score, is_tensor, numpy_of, rows_of, sides_of, unit_rows
from st_core.sparse_rows import BLOCK, Postings, SparseRows, shared_sums
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["community_detection", "paraphrase_mining", "paraphrase_mining_embeddings", "semantic_search"]

TALL = 512
"""Queries a block at most: beyond that a block of BLOCK scores gets too narrow to cut many of them off."""

Score = Callable[[Any, Any], Any]
Scorer = Callable[[Any], "NDArray[np.float32]"]


def semantic_search(  # noqa: PLR0917 -- sentence-transformers' signature
    query_embeddings: Any,
    corpus_embeddings: Any,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Score = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """The ``top_k`` nearest vectors of a corpus for each query, best first: ``{"corpus_id": position, "score": score}``.

    The chunk sizes are upper limits. ``score_function`` takes two batches and gives a matrix [queries, corpus], higher being nearer.
    """
    sides = _Sides.of(query_embeddings, corpus_embeddings, score_function)
    found: list[list[dict[str, int | float]]] = []
    for _, scores, ids in _nearest(sides, query_chunk_size, corpus_chunk_size, top_k):
        found += [
            [{"corpus_id": position, "score": value} for position, value in zip(*row, strict=True)]
            for row in zip(ids.tolist(), scores.tolist(), strict=True)
        ]
    return found


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
    """Encode texts and give the pairs that are nearest, as :func:`paraphrase_mining_embeddings` does."""
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
    embeddings: Any,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = cos_sim,
) -> list[list[float | int]]:
    """The nearest pairs ``[score, i, j]`` with i < j, best first: at most ``top_k`` for each vector and ``max_pairs`` in all.

    ``score_function`` is taken to be symmetric: the score of a pair is that of the direction met first.
    """
    sides = _Sides.of(embeddings, embeddings, score_function)
    pairs = _Pairs.none()
    for start, scores, ids in _nearest(sides, query_chunk_size, corpus_chunk_size, top_k + 1):
        mine = np.broadcast_to(np.arange(start, start + len(ids))[:, None], ids.shape)
        others = ids != mine
        kept = others & (np.cumsum(others, axis=1) <= top_k)
        pairs = pairs.joined(scores[kept], np.minimum(mine, ids)[kept], np.maximum(mine, ids)[kept]).best(max_pairs)
    return [[score, i, j] for score, i, j in zip(*(part.tolist() for part in pairs.sorted()), strict=True)]


def community_detection(
    embeddings: Any,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Groups of vectors whose cosine with a central one is at least ``threshold``, the largest first, the centre first in each.

    Where groups overlap, the larger keeps what both hold. Every score is computed once to count and once more for the centres that are
    looked at, so that no list of neighbours is held.
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
    """The communities of the centres, in order, without what an earlier one has taken."""
    taken = np.zeros(sides.size, np.bool_)
    height = max(1, BLOCK // sides.size)
    while centres.size:
        some = centres[:height]
        for centre, scores in zip(some.tolist(), sides.whole_rows(some), strict=True):
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
    """Pairs of positions, ``low`` < ``high``, and their scores; each [n]."""

    scores: NDArray[np.float32]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @classmethod
    def none(cls) -> _Pairs:
        return cls(np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))

    def joined(self, scores: NDArray[np.float32], low: NDArray[np.int64], high: NDArray[np.int64]) -> _Pairs:
        """With more pairs; of a pair met twice the first stays."""
        lows, highs = np.concatenate([self.low, low]), np.concatenate([self.high, high])
        _, first = np.unique(lows * (1 + highs.max(initial=0)) + highs, return_index=True)
        return _Pairs(np.concatenate([self.scores, scores])[first], lows[first], highs[first])

    def best(self, count: int) -> _Pairs:
        """The ``count`` pairs of the highest scores."""
        if self.scores.size <= count:
            return self
        kept = columns_of_best(self.scores[None, :], count)[0]
        return _Pairs(self.scores[kept], self.low[kept], self.high[kept])

    def sorted(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Best first, equal scores by position."""
        order = np.lexsort((self.high, self.low, -self.scores))
        return self.scores[order], self.low[order], self.high[order]


@dataclass(frozen=True, slots=True)
class _Sides:
    """Two sets of vectors made ready once, and how a block of one is scored against a block of the other.

    With ``unit`` the rows of ``queries`` have unit length and ``scales`` holds one over the lengths of ``corpus``'s rows, which spares a copy
    of it. ``score`` is None for inner products.
    """

    queries: Any
    corpus: Any
    scales: NDArray[Any] | None
    score: Score | None

    @classmethod
    def of(cls, queries: Any, corpus: Any, score: Score) -> _Sides:
        if score is not cos_sim and score is not dot_score:
            return cls(_batch(queries), _batch(corpus), None, score)
        left, right = sides_of(queries, corpus)
        if score is dot_score:
            return cls(left, right, None, None)
        if isinstance(left, SparseRows):
            return cls(left.unit(), right.unit(), None, None)
        return cls(unit_rows(left), right, 1 / np.maximum(np.linalg.norm(right, axis=1), 1e-12), None)

    @property
    def size(self) -> int:
        """How many vectors the corpus has."""
        return _count(self.corpus)

    def queries_in(self, height: int) -> Iterator[tuple[int, Any]]:
        """The queries in blocks: (first query, queries)."""
        return ((start, _cut(self.queries, start, stop)) for start, stop in _spans(_count(self.queries), height))

    def scorers(self, width: int) -> list[tuple[int, Scorer]]:
        """What scores queries against each block of the corpus: (first of the corpus, function)."""
        return [(start, self._scorer(start, stop)) for start, stop in _spans(self.size, width)]

    def whole_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of some queries with the whole corpus [rows, corpus]."""
        queries = self.queries.take(rows) if isinstance(self.queries, SparseRows) else self.queries[rows]
        return self._scorer(0, self.size)(queries)

    def _scorer(self, start: int, stop: int) -> Scorer:
        """What scores queries against a block of the corpus."""
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
    """The best of the corpus for each block of queries: (first query, scores [queries, k], positions [queries, k]), best first."""
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
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
            kept = columns_of_best(scores, top_k)
            scores, ids = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(ids, kept, axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        yield top, np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def columns_of_best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The columns of the ``count`` highest scores of each row, rising [rows, count]; of equal scores the first columns."""
    rows, width = scores.shape
    if width <= count:
        return np.broadcast_to(np.arange(width), scores.shape)
    least = np.partition(scores, width - count, axis=1)[:, width - count, None]
    kept = scores >= least
    tied = np.flatnonzero(kept.sum(axis=1) > count)
    if tied.size:
        above, equal = scores[tied] > least[tied], scores[tied] == least[tied]
        room = count - above.sum(axis=1, keepdims=True)
        kept[tied] = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(kept)[1].reshape(rows, count)


def _scores(raw: Any) -> NDArray[np.float32]:
    """A matrix of scores, an array or a tensor, as float32 without NaN."""
    scores = (numpy_of(raw) if is_tensor(raw) else np.asarray(raw)).astype(np.float32, copy=False)
    unknown = np.isnan(scores)
    return np.where(unknown, np.float32(-np.inf), scores) if unknown.any() else scores


def _batch(vectors: Any) -> Any:
    """Vectors as something with rows that can be cut: what it was if possible, so that a score function meets what it knows."""
    if isinstance(vectors, SparseMatrix):
        return vectors
    if hasattr(vectors, "tocsr"):
        return vectors.tocsr()
    if is_tensor(vectors):
        return vectors if vectors.dim() > 1 else vectors.unsqueeze(0)
    return rows_of(vectors)


def _count(vectors: Any) -> int:
    """The number of rows; a lone vector is one."""
    if isinstance(vectors, SparseRows):
        return len(vectors)
    return int(vectors.shape[0])


def _cut(vectors: Any, start: int, stop: int) -> Any:
    """Some rows, over the same memory where that is possible."""
    if isinstance(vectors, SparseRows):
        return vectors.slice(start, stop)
    if is_tensor(vectors) and vectors.is_sparse:
        torch = sys.modules["torch"]
        return vectors.index_select(0, torch.arange(start, stop, device=vectors.device))
    return vectors[start:stop]


def _spans(count: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut ``count`` rows into (start, stop) of at most ``width``."""
    return ((start, min(start + width, count)) for start in range(0, count, width))


def _tracked(blocks: Iterator[tuple[int, Any]], total: int, *, shown: bool) -> Iterator[tuple[int, Any]]:
    """The same blocks, with a progress bar on standard error if one is wanted."""
    if not shown:
        return blocks
    from rich.console import Console
    from rich.progress import track

    return iter(track(blocks, "Comparing", total=total, console=Console(stderr=True)))
