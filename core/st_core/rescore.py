"""Search quantized vectors with unquantized queries, using only numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from st_core.quantize import STEPS, Array, quantize_embeddings
from st_core.retrieval import columns_of_best
from st_core.tensors import is_tensor, numpy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["semantic_search_quantized"]

BLOCK = 1 << 22
"""The number of array elements, or of bytes of bit vectors, that are processed as one block."""

_BITS = np.array([number.bit_count() for number in range(256)], np.uint8)


def semantic_search_quantized(
    query_embeddings: object,
    corpus_embeddings: Array,
    corpus_precision: Literal["int8", "uint8", "binary", "ubinary"],
    *,
    ranges: Array | None = None,
    top_k: int = 10,
    rescore_multiplier: int = 4,
) -> list[list[dict[str, int | float]]]:
    """Return, for each query, the ``top_k`` nearest vectors of a quantized corpus as dicts, best first.

    Each dict has a ``corpus_id`` and a ``score``. ``query_embeddings`` are floats [n, d] or [d], and
    ``corpus_embeddings`` the result of :func:`quantize_embeddings`. For ``binary`` and ``ubinary``, candidates are the
    ``top_k`` times ``rescore_multiplier`` vectors that differ from the query in the fewest bits; a candidate's score is
    the sum of the query's values in the dimensions whose bit is set. For ``int8`` and ``uint8``, ``ranges`` [2, d] must
    be those of the quantization; the score is the inner product of the query and the dequantized vector. Vectors with
    equal scores are in the order of the corpus. Raises ValueError for shapes or types that do not match.
    """
    if top_k < 1 or rescore_multiplier < 1:
        raise ValueError(f"expected top_k and rescore_multiplier of at least 1, got {top_k} and {rescore_multiplier}")
    queries = numpy_of(query_embeddings) if is_tensor(query_embeddings) else np.asarray(query_embeddings)
    queries = np.atleast_2d(queries)
    corpus = _codes_of(queries, corpus_embeddings, corpus_precision, ranges)
    if corpus_precision in ("int8", "uint8"):
        hits = _best_of(_scaled_scores(queries, corpus, np.asarray(ranges, np.float32)), len(queries), top_k)
    else:
        near = _best_of(_bit_scores(queries, corpus), len(queries), top_k * rescore_multiplier)
        hits = [_rescored(query, corpus, ids, top_k) for query, (_, ids) in zip(queries, near, strict=True)]
    return [
        [{"corpus_id": int(position), "score": float(score)} for score, position in zip(*row, strict=True)]
        for row in hits
    ]


def _codes_of(queries: Array, corpus: Array, precision: str, ranges: Array | None) -> NDArray[np.uint8]:
    """Return the corpus as unsigned step numbers, uint8 [m, d], or as packed bits, uint8 [m, bytes].

    Raises ValueError for shapes or types that do not match.
    """
    types = {"int8": np.int8, "binary": np.int8, "uint8": np.uint8, "ubinary": np.uint8}
    if precision not in types:
        raise ValueError(f"unknown corpus precision {precision!r}; expected one of {', '.join(types)}")
    if not np.issubdtype(queries.dtype, np.floating):
        raise ValueError(f"expected float queries, got {queries.dtype}: only the corpus is quantized")
    codes, width = np.asarray(corpus), queries.shape[1]
    columns = width if precision in ("int8", "uint8") else -(-width // 8)
    if codes.ndim != 2 or codes.shape[1] != columns or codes.dtype != types[precision]:
        raise ValueError(
            f"expected a {precision} corpus for queries of {width} dimensions as [m, {columns}] of "
            f"{types[precision].__name__}, got {codes.shape} of {codes.dtype}"
        )
    if precision in ("int8", "uint8") and (ranges is None or np.shape(ranges) != (2, width)):
        raise ValueError(f"expected the ranges [2, {width}] that the {precision} vectors were quantized with")
    unsigned = codes.view(np.uint8)
    return unsigned if codes.dtype == np.uint8 else unsigned ^ np.uint8(0x80)


def _spans(rows: int, cells: int) -> Iterator[slice]:
    """Return slices that divide ``rows`` rows into blocks; each row takes ``cells`` elements of a block."""
    step = max(1, BLOCK // max(1, cells))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _scaled_scores(
    queries: Array, corpus: NDArray[np.uint8], ranges: NDArray[np.float32]
) -> Iterator[NDArray[np.float32]]:
    """Yield the inner products of the queries and the dequantized vectors, for one block of the corpus at a time.

    Each result is [n, block].
    """
    steps = (ranges[1] - ranges[0]) / STEPS
    scaled = (queries * np.where(steps == 0, 1, steps)).astype(np.float32)
    base = (queries @ ranges[0]).astype(np.float32)[:, None]
    for span in _spans(len(corpus), max(corpus.shape[1], len(queries))):
        yield scaled @ corpus[span].astype(np.float32).T + base


def _bit_scores(queries: Array, corpus: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Yield minus the number of bits in which queries and vectors differ, for one block of the corpus at a time.

    Each result is [n, block].
    """
    query_bits = np.asarray(quantize_embeddings(queries, "ubinary"))
    for span in _spans(len(corpus), corpus.shape[1] * len(queries)):
        differing = _BITS[query_bits[:, None, :] ^ corpus[None, span, :]]
        yield -differing.sum(axis=2, dtype=np.int32).astype(np.float32)


def _best_of(
    blocks: Iterator[NDArray[np.float32]], rows: int, count: int
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return the ``count`` highest scores of each row and their columns, best first.

    ``blocks`` are consecutive blocks of columns.
    """
    scores, ids, start = np.empty((rows, 0), np.float32), np.empty((rows, 0), np.int64), 0
    for block in blocks:
        scores = np.concatenate([scores, block], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)], axis=1)
        start += block.shape[1]
        best = columns_of_best(scores, count)
        scores, ids = np.take_along_axis(scores, best, axis=1), np.take_along_axis(ids, best, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return list(zip(np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1), strict=True))


def _rescored(
    query: Array, corpus: NDArray[np.uint8], ids: NDArray[np.int64], top_k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the scores and ids of the ``top_k`` best bit vectors among ``ids``.

    The score is the sum of the query's values in the dimensions whose bit is set.
    """
    ids = np.sort(ids)
    bits = np.unpackbits(corpus[ids], axis=1)[:, : query.size]
    scores = (bits @ query.astype(np.float32)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:top_k]
    return scores[order], ids[order]
