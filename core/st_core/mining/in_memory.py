"""``mine_hard_negatives`` of sentence-transformers 6.2: candidates are searched in memory, by a dense model."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from st_core.fingerprint import describe
from st_core.mining.forms import FORMATS, Mined, rows_of
from st_core.mining.pairs import Query, columns_of_pairs, queries_of
from st_core.mining.selecting import Candidates, Selection, select
from st_core.rows import is_file_set, rows_of_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["mine_hard_negatives"]

logger = logging.getLogger(__name__)

SCORES = 1 << 24
"""The largest number of scores that are in memory at once."""


def mine_hard_negatives(  # noqa: PLR0917 - the order of sentence-transformers
    dataset: Any,
    model: Any,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | None = None,
    cross_encoder: Any = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: Literal["random", "top"] = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: Literal["triplet", "n-tuple", "labeled-pair", "labeled-list"] = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    faiss_batch_size: int = 16384,
    use_faiss: bool = False,
    use_multi_process: Sequence[str] | bool = False,
    verbose: bool = True,
    cache_folder: str | PathLike[str] | None = None,
    as_triplets: bool | None = None,
    margin: float | None = None,
    *,
    max_quantile: float | None = None,
    near_duplicates: float | None = 0.8,
    seed: int = 42,
) -> Any:
    """Return pairs of queries and positives with hard negatives, which a dense model finds in a corpus.

    ``dataset`` is a list of mappings, the path of a file or those of several (JSONL, CSV, Parquet), or a
    ``datasets.Dataset``; the result is a list of mappings, or a ``datasets.Dataset``. Queries are in
    ``anchor_column_name`` and positives in ``positive_column_name``, by default the first two columns; rows of equal
    queries are positives of one query. The corpus are all positives and the texts of ``corpus``. For the selection see
    :class:`st_core.mining.Selection`, for ``output_format`` :func:`st_core.mining.rows_of`. A ``cross_encoder`` scores
    the candidates where a margin or a bound is set, which are then in its units. ``include_positives`` keeps positives
    among the candidates, in the form n-tuple. Random negatives are drawn by ``seed``.

    The search is exact, with at most ``faiss_batch_size`` queries at once; ``use_faiss`` has no effect.
    ``cache_folder`` keeps the vectors, by model, prompts and texts. Raises ValueError for arguments that contradict
    each other and for rows without texts.
    """
    rows = rows_of_files(dataset) if is_file_set(dataset) else dataset
    if not len(rows):
        raise ValueError("the data set has no rows; pass pairs of queries and positives")
    columns = columns_of_pairs(list(rows[0]), anchor_column_name, positive_column_name)
    queries = queries_of(rows, *columns)
    form = _form(output_format, as_triplets, include_positives=include_positives)
    selection = Selection(
        num_negatives,
        range_min,
        range_max,
        max_score,
        min_score,
        absolute_margin if margin is None else margin,
        relative_margin,
        max_quantile,
        sampling_strategy,
        None if include_positives else near_duplicates,
    )
    if use_faiss:
        logger.info("use_faiss has no effect: the search is exact and in blocks")
    texts = list(dict.fromkeys([*(corpus or ()), *(text for query in queries for text in query.positives)]))
    encoder = _Encoder(model, batch_size, use_multi_process, None if cache_folder is None else Path(cache_folder))
    vectors = encoder.encode("encode_document", texts, corpus_prompt_name, corpus_prompt)
    query_vectors = encoder.encode("encode_query", [each.text for each in queries], query_prompt_name, query_prompt)
    most = max(len(each.positives) for each in queries)
    miner = _Miner(
        model,
        texts,
        vectors,
        selection,
        cross_encoder if selection.has_bound else None,
        last_rank=selection.last_rank(most, has_reranker=cross_encoder is not None),
        most_positives=most,
        includes_positives=include_positives,
        batch_size=batch_size,
    )
    generator = random.Random(seed)  # noqa: S311 - a sample, no secret
    mined = list(miner.mined(queries, query_vectors, faiss_batch_size, generator))
    found = [row for each in mined for row in rows_of(each, form, num_negatives, *columns, has_scores=output_scores)]
    if verbose:
        _report(mined, num_negatives)
    make: Any = getattr(type(dataset), "from_list", None)
    return found if make is None else make(found)


def _form(form: str, as_triplets: bool | None, *, include_positives: bool) -> str:
    if as_triplets is not None:
        form = "triplet" if as_triplets else "n-tuple"
    if form not in FORMATS:
        raise ValueError(f"output_format must be one of {', '.join(FORMATS)}, got {form!r}")
    if include_positives and form != "n-tuple":
        logger.warning("include_positives is for rankings, so that output_format is 'n-tuple' and not %r", form)
        return "n-tuple"
    return form


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Encodes texts as unit vectors, once for each model, prompt and list of texts where there is a cache."""

    model: Any
    batch_size: int
    devices: Sequence[str] | bool
    cache: Path | None

    def encode(
        self, method: str, texts: Sequence[str], prompt_name: str | None, prompt: str | None
    ) -> NDArray[np.float32]:
        """Return the vectors [n, d] of texts."""
        path = self._path(method, texts, prompt_name, prompt)
        if path is not None and path.is_file():
            stored: NDArray[np.float32] = np.load(path)
            return stored
        pool = None
        if self.devices:
            devices = None if isinstance(self.devices, bool) else list(self.devices)
            pool = self.model.start_multi_process_pool(target_devices=devices)
        try:
            options: dict[str, Any] = {"prompt_name": prompt_name, "prompt": prompt, "batch_size": self.batch_size}
            if pool is not None:
                options["pool"] = pool
            vectors = np.asarray(
                getattr(self.model, method)(list(texts), normalize_embeddings=True, convert_to_numpy=True, **options)
            )
        finally:
            if pool is not None:
                self.model.stop_multi_process_pool(pool)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, vectors)
        return vectors

    def _path(self, method: str, texts: Sequence[str], prompt_name: str | None, prompt: str | None) -> Path | None:
        if self.cache is None:
            return None
        identity = repr((dict(describe(self.model).fingerprint), method, prompt_name, prompt, list(texts)))
        return self.cache / f"{method}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"


@dataclass(frozen=True, slots=True)
class _Miner:
    """Searches a corpus for candidates and selects the negatives of each query."""

    model: Any
    texts: Sequence[str]
    vectors: NDArray[np.float32]
    selection: Selection
    reranker: Any
    last_rank: int
    most_positives: int
    includes_positives: bool
    batch_size: int

    def mined(
        self, queries: Sequence[Query], vectors: NDArray[np.float32], block: int, generator: random.Random
    ) -> Iterator[Mined]:
        """Yield the negatives of each query, of whose scores at most ``SCORES`` are in memory at once."""
        size = max(1, min(block, SCORES // len(self.texts)))
        places = {text: place for place, text in enumerate(self.texts)}
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            scores = _numbers(self.model.similarity(vectors[start : start + size], self.vectors))
            own = [
                tuple(float(row[places[text]]) for text in query.positives)
                for query, row in zip(part, scores, strict=True)
            ]
            best = [self._candidates(row) for row in scores]
            if self.reranker is not None:
                best, own = self._rescored(part, best)
            for query, candidates, positive in zip(part, best, own, strict=True):
                yield self._select(query, candidates, positive, generator)

    def _candidates(self, scores: NDArray[np.float32]) -> Candidates:
        """Return the best documents of a query; of equal scores, those that come first in the corpus."""
        count = min(self.last_rank + self.most_positives, scores.size)
        least = np.partition(scores, scores.size - count)[scores.size - count]
        places = np.flatnonzero(scores >= least)
        places = places[np.argsort(-scores[places], kind="stable")][:count]
        return Candidates(tuple(self.texts[place] for place in places.tolist()), tuple(scores[places].tolist()))

    def _rescored(
        self, queries: Sequence[Query], best: Sequence[Candidates]
    ) -> tuple[list[Candidates], list[tuple[float, ...]]]:
        """Return candidates and the scores of positives by the cross-encoder."""
        listed = [(*each.texts, *query.positives) for query, each in zip(queries, best, strict=True)]
        pairs = [(query.text, text) for query, texts in zip(queries, listed, strict=True) for text in texts]
        scores = _numbers(self.reranker.predict(pairs, batch_size=self.batch_size))
        parts = np.split(scores, np.cumsum([len(texts) for texts in listed])[:-1])
        rescored = [
            replace(each, scores=tuple(part[: len(each.texts)].tolist()))
            for each, part in zip(best, parts, strict=True)
        ]
        return rescored, [tuple(part[len(each.texts) :].tolist()) for each, part in zip(best, parts, strict=True)]

    def _select(
        self, query: Query, candidates: Candidates, positive: tuple[float, ...], generator: random.Random
    ) -> Mined:
        chosen = select(
            candidates,
            () if self.includes_positives else query.positives,
            self.selection,
            last_rank=self.last_rank,
            lowest_positive=min(positive),
            generator=generator,
        )
        return Mined(
            query,
            positive,
            tuple(candidates.texts[place] for place in chosen),
            tuple(candidates.scores[place] for place in chosen),
        )


def _numbers(scores: Any) -> NDArray[np.float32]:
    return np.asarray(scores.cpu() if hasattr(scores, "cpu") else scores)


def _report(mined: Sequence[Mined], count: int) -> None:
    """Log how many negatives were selected, and how their scores compare with those of the positives."""
    positives = np.array([score for each in mined for score in each.positive_scores])
    negatives = np.array([score for each in mined for score in each.negative_scores])
    short = sum(len(each.negatives) < count for each in mined)
    mean = float(negatives.mean()) if negatives.size else float("nan")
    logger.info(
        "%d negatives of %d queries; mean score %.4f, of positives %.4f; %d queries have fewer than %d",
        *(negatives.size, len(mined), mean, positives.mean(), short, count),
    )
