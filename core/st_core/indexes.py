"""Search quantized vectors with faiss or usearch, with the results of sentence-transformers 6.2.

Neither library is a dependency; :func:`st_core.semantic_search_quantized` needs only numpy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from st_core.errors import missing_packages
from st_core.quantize import Array, Precision, dequantize, quantization_ranges, quantize_embeddings
from st_core.tensors import is_tensor, numpy_of

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["semantic_search_faiss", "semantic_search_usearch"]

log = logging.getLogger(__name__)

Hits = list[list[dict[str, int | float]]]

NEIGHBOURS = 16
"""The number of edges per vector in the graph of an approximate index of faiss."""


class FaissIndex(Protocol):
    """The members of an index of faiss that are used here; binary indexes have no class in common with others."""

    d: int

    def add(self, vectors: Array, /) -> None:
        """Add vectors [n, d]."""
        ...

    def search(self, queries: Array, top_k: int, /) -> tuple[Array, Array]:
        """Return the scores and the ids [n, k] of the nearest vectors."""
        ...

    def reconstruct(self, key: int, /) -> Array:
        """Return the vector of an id."""
        ...


def semantic_search_faiss(  # noqa: PLR0917 -- sentence-transformers' signature
    query_embeddings: object,
    corpus_embeddings: Array | None = None,
    corpus_index: FaissIndex | None = None,
    corpus_precision: Literal["float32", "uint8", "ubinary"] = "float32",
    top_k: int = 10,
    ranges: Array | None = None,
    calibration_embeddings: Array | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """Return, for each query, the ``top_k`` nearest vectors of a corpus as dicts, and the seconds of the search.

    Each dict has a ``corpus_id`` and a ``score``, best first. The corpus is a result of :func:`quantize_embeddings`, or
    a faiss index of one; ``output_index`` adds the index to the results. Queries [n, d] are floats, or quantized like
    the corpus. For float queries and a quantized corpus, ``rescore`` finds ``top_k`` times ``rescore_multiplier``
    vectors first, and returns the best of them by the inner product of the query and the dequantized vector.
    ``ranges`` [2, d], or those of ``calibration_embeddings``, must be those that the corpus was quantized with. Raises
    ImportError without faiss, and ValueError for both or neither of the corpora, or for an unknown precision.
    """
    try:
        import faiss
    except ImportError as error:
        raise missing_packages(["faiss_cpu"], "semantic_search_faiss") from error
    _check_corpus(corpus_embeddings, corpus_index, corpus_precision, ("float32", "uint8", "ubinary"))
    if corpus_index is None:
        assert corpus_embeddings is not None
        corpus_index = _faiss_index(faiss, corpus_embeddings, corpus_precision, exact)
    index = corpus_index
    queries = _Queries.of(query_embeddings, corpus_precision, ranges, calibration_embeddings, rescore)
    start = time.perf_counter()
    scores, ids = index.search(queries.codes, top_k * rescore_multiplier if queries.is_rescored else top_k)
    if queries.is_rescored:
        blank = np.zeros(index.d // 8 if corpus_precision == "ubinary" else index.d, np.uint8)
        scores, ids = queries.rescored(ids, lambda key: blank if key < 0 else index.reconstruct(key), top_k)
    return _results(scores, ids, time.perf_counter() - start, index if output_index else None)


def semantic_search_usearch(  # noqa: PLR0917 -- sentence-transformers' signature
    query_embeddings: object,
    corpus_embeddings: Array | None = None,
    corpus_index: Any = None,
    corpus_precision: Literal["float32", "int8", "ubinary", "binary"] = "float32",
    top_k: int = 10,
    ranges: Array | None = None,
    calibration_embeddings: Array | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """Return what :func:`semantic_search_faiss` returns, from an index of usearch and for its precisions.

    Without ``rescore`` a score is a distance, smallest first: one minus the cosine for float32, one minus the inner
    product for int8, and the number of unequal bits otherwise.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise missing_packages(["usearch"], "semantic_search_usearch") from error
    _check_corpus(corpus_embeddings, corpus_index, corpus_precision, ("float32", "int8", "ubinary", "binary"))
    index = corpus_index if corpus_embeddings is None else _usearch_index(Index, corpus_embeddings, corpus_precision)
    queries = _Queries.of(query_embeddings, corpus_precision, ranges, calibration_embeddings, rescore)
    start = time.perf_counter()
    count = top_k * rescore_multiplier if queries.is_rescored else top_k
    matches = index.search(_raw_bits(queries.codes, corpus_precision), count=count, exact=exact)
    scores, ids = np.atleast_2d(matches.distances), np.atleast_2d(matches.keys).astype(np.int64)
    counts = np.asarray(getattr(matches, "counts", ids.shape[1])).reshape(-1, 1)
    ids = np.where(np.arange(ids.shape[1]) < counts, ids, -1)
    if queries.is_rescored:
        blank = np.zeros(queries.codes.shape[1], np.int8 if corpus_precision == "int8" else np.uint8)
        scores, ids = queries.rescored(ids, lambda key: blank if key < 0 else index.get(key), top_k)
    return _results(scores, ids, time.perf_counter() - start, index if output_index else None)


class _Queries(NamedTuple):
    """Queries as floats [n, d] and as the codes that an index is searched with."""

    floats: Array
    codes: Array
    precision: str
    ranges: Array | None
    is_rescored: bool

    @classmethod
    def of(
        cls, queries: object, precision: Precision, ranges: Array | None, calibration: Array | None, rescore: bool
    ) -> _Queries:
        """Return queries quantized to the precision of the corpus, unless they are quantized already."""
        array = np.atleast_2d(numpy_of(queries) if is_tensor(queries) else np.asarray(queries))
        if array.dtype in (np.uint8, np.int8):
            if rescore:
                log.warning("quantized queries are not rescored: pass floats, or rescore=False")
            return cls(array, array, precision, ranges, False)
        if precision == "float32" and rescore:
            log.warning("a float32 corpus is not rescored: pass codes and corpus_precision=, or rescore=False")
        if precision in ("int8", "uint8") and ranges is None:
            ranges = quantization_ranges(array if calibration is None else calibration)
        codes = np.asarray(quantize_embeddings(array, precision, ranges))
        return cls(array, codes, precision, ranges, rescore and precision != "float32")

    def rescored(self, ids: Array, code: Callable[[int], Array], top_k: int) -> tuple[Array, Array]:
        """Return the scores and the ids of the ``top_k`` best candidates [n, k]; an id of -1 is no candidate."""
        shape = (*ids.shape, self.codes.shape[1])
        codes = np.array([code(int(key)) for key in ids.flat]).reshape(shape)
        if self.precision in ("binary", "ubinary"):
            vectors = np.unpackbits(codes.astype(np.uint8), axis=-1)[..., : self.floats.shape[1]].astype(np.float64)
        else:
            vectors = dequantize(codes, self.precision, np.asarray(self.ranges))
        scores = np.einsum("ij,ikj->ik", self.floats, vectors)
        scores[ids < 0] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(ids, best, axis=1)


def _check_corpus(embeddings: object, index: object, precision: str, known: Sequence[str]) -> None:
    """Raise ValueError unless there is one corpus, of a known precision."""
    if (embeddings is None) == (index is None):
        raise ValueError("expected either corpus_embeddings or corpus_index")
    if precision not in known:
        raise ValueError(f"unknown corpus_precision {precision!r}; expected one of {', '.join(known)}")


def _faiss_index(faiss: ModuleType, corpus: Array, precision: str, exact: bool) -> FaissIndex:
    """Return a faiss index of a corpus, flat if searches are to be exact, else a graph."""
    width = corpus.shape[1]
    if precision == "ubinary":
        index: FaissIndex = faiss.IndexBinaryFlat(width * 8) if exact else faiss.IndexBinaryHNSW(width * 8, NEIGHBOURS)
    elif exact:
        index = faiss.IndexFlatIP(width)
    else:
        index = faiss.IndexHNSWFlat(width, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.add(corpus)
    return index


def _usearch_index(build: type, corpus: Array, precision: str) -> Any:
    """Return a usearch index of a corpus."""
    width = corpus.shape[1]
    if precision == "float32":
        index = build(ndim=width, metric="cos", dtype="f32")
    elif precision == "int8":
        index = build(ndim=width, metric="ip", dtype="i8")
    else:
        index = build(ndim=width * 8, metric="hamming", dtype="b1")
    index.add(np.arange(len(corpus)), _raw_bits(corpus, precision))
    return index


def _raw_bits(codes: Array, precision: str) -> Array:
    """Return the values of ``binary`` as those of ``ubinary``, and others unchanged."""
    return codes.view(np.uint8) ^ 0x80 if precision == "binary" else codes


def _results(
    scores: Array, ids: Array, seconds: float, index: object
) -> tuple[Hits, float] | tuple[Hits, float, object]:
    """Return hits, the time of the search and the index, if any."""
    hits: Hits = [
        [{"corpus_id": key, "score": score} for score, key in zip(*row, strict=True) if key >= 0]
        for row in zip(scores.tolist(), ids.tolist(), strict=True)
    ]
    return (hits, seconds) if index is None else (hits, seconds, index)
