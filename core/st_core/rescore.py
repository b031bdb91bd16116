"""Search among vectors of few bits, scored by queries that keep all of theirs; numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from st_core.quantize import STEPS, quantize_embeddings
from st_core.retrieval import columns_of_best
from st_core.similarity import is_tensor, numpy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["semantic_search_quantized"]

BLOCK = 1 << 22
"""Cells, or bytes of bit vectors, that are looked at together."""

_BITS = np.array([number.bit_count() for number in range(256)], np.uint8)


def semantic_search_quantized(
    query_embeddings: Any,
    corpus_embeddings: NDArray[Any],
    corpus_precision: Literal["int8", "uint8", "binary", "ubinary"],
    *,
    ranges: NDArray[Any] | None = None,
    top_k: int = 10,
    rescore_multiplier: int = 4,
) -> list[list[dict[str, int | float]]]:
    """The ``top_k`` nearest of a quantised corpus for each float query, best first: ``{"corpus_id": position, "score": score}``.

    ``query_embeddings`` are [n, d] or [d] floats, ``corpus_embeddings`` what :func:`quantize_embeddings` gave. Of bits, the ``top_k`` times
    ``rescore_multiplier`` vectors that differ in the fewest from the query's are scored anew: by the sum of the query over the bits that are
    set. ``int8`` and ``uint8`` need the ``ranges`` [2, d] they were made with; every vector is scored, by the query's inner product with the
    values that its steps stand for. Equal scores are in the corpus's order. Raises ValueError where shapes or types do not fit.
    """
    if top_k < 1 or rescore_multiplier < 1:
        raise ValueError(f"top_k and rescore_multiplier must be at least 1, not {top_k} and {rescore_multiplier}")
    queries = numpy_of(query_embeddings) if is_tensor(query_embeddings) else np.asarray(query_embeddings)
    queries = np.atleast_2d(queries)
    corpus = _checked(queries, corpus_embeddings, corpus_precision, ranges)
    if corpus_precision in ("int8", "uint8"):
        found = _best_of(_scaled_scores(queries, corpus, np.asarray(ranges, np.float32)), len(queries), top_k)
    else:
        near = _best_of(_shared_bits(queries, corpus), len(queries), top_k * rescore_multiplier)
        found = [_rescored(query, corpus, ids, top_k) for query, (_, ids) in zip(queries, near, strict=True)]
    return [
        [{"corpus_id": int(place), "score": float(score)} for score, place in zip(*row, strict=True)] for row in found
    ]


def _checked(queries: NDArray[Any], corpus: NDArray[Any], precision: str, ranges: Any) -> NDArray[Any]:
    """The corpus as codes from 0 on, uint8 [m, d], or as bits, uint8 [m, bytes]."""
    types = {"int8": np.int8, "binary": np.int8, "uint8": np.uint8, "ubinary": np.uint8}
    if precision not in types:
        raise ValueError(f"{precision!r} is no precision to search in; there are {', '.join(types)}")
    if not np.issubdtype(queries.dtype, np.floating):
        raise ValueError(f"queries must be floats, not {queries.dtype}: only the corpus is quantised")
    codes, width = np.asarray(corpus), queries.shape[1]
    wanted = width if precision in ("int8", "uint8") else -(-width // 8)
    if codes.ndim != 2 or codes.shape[1] != wanted or codes.dtype != types[precision]:
        raise ValueError(
            f"a {precision} corpus for queries of {width} dimensions is [m, {wanted}] of {types[precision].__name__}, "
            f"not {codes.shape} of {codes.dtype}"
        )
    if precision in ("int8", "uint8") and (ranges is None or np.shape(ranges) != (2, width)):
        raise ValueError(f"{precision} vectors need the ranges [2, {width}] they were made with")
    return codes if codes.dtype == np.uint8 else codes.view(np.uint8) ^ 0x80


def _spans(rows: int, cells: int) -> Iterator[slice]:
    """The corpus in slices, ``cells`` of which fit into a block."""
    step = max(1, BLOCK // max(1, cells))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _scaled_scores(
    queries: NDArray[Any], corpus: NDArray[np.uint8], ranges: NDArray[np.float32]
) -> Iterator[NDArray[np.float32]]:
    """The inner products of queries with the values that codes stand for, block by block [n, block]."""
    steps = (ranges[1] - ranges[0]) / STEPS
    scaled = (queries * np.where(steps == 0, 1, steps)).astype(np.float32)
    base = (queries @ ranges[0]).astype(np.float32)[:, None]
    for span in _spans(len(corpus), max(corpus.shape[1], len(queries))):
        yield scaled @ corpus[span].astype(np.float32).T + base


def _shared_bits(queries: NDArray[Any], corpus: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Minus the number of bits in which queries and vectors differ, block by block [n, block]."""
    asked = np.asarray(quantize_embeddings(queries, "ubinary"))
    for span in _spans(len(corpus), corpus.shape[1] * len(queries)):
        differing = _BITS[asked[:, None, :] ^ corpus[None, span, :]]
        yield -differing.sum(axis=2, dtype=np.int32).astype(np.float32)


def _best_of(
    blocks: Iterator[NDArray[np.float32]], rows: int, count: int
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The ``count`` highest scores of each row with their columns, best first, from a matrix that comes in blocks of columns."""
    scores, ids, start = np.empty((rows, 0), np.float32), np.empty((rows, 0), np.int64), 0
    for block in blocks:
        scores = np.concatenate([scores, block], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)], axis=1)
        start += block.shape[1]
        kept = columns_of_best(scores, count)
        scores, ids = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(ids, kept, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return list(zip(np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1), strict=True))


def _rescored(
    query: NDArray[Any], corpus: NDArray[np.uint8], ids: NDArray[np.int64], top_k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best of some bit vectors by the sum of the query over their bits."""
    ids = np.sort(ids)
    bits = np.unpackbits(corpus[ids], axis=1)[:, : query.size]
    scores = (bits @ query.astype(np.float32)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:top_k]
    return scores[order], ids[order]
