"""Stores that return wrong hits or scores, or declare wrong capabilities."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from st_connectors.schema import DenseField, Metric, Schema, TextField
from st_connectors.store import Capabilities, Fuse, Hit, Match, Near, Parts, Record, SearchRequest, Store
from st_connectors.testing.base import EVERYTHING
from st_connectors.testing.broken.base import Broken, Failed, Passing, sort_and_cut, with_schema, wrapping
from st_core.vectors import SparseVector

__all__ = ["SEARCHING"]


def _dense(request: SearchRequest, schema: Schema) -> DenseField | None:
    field = None if isinstance(request.rank, Fuse) else schema.fields[request.rank.field]
    return field if isinstance(field, DenseField) else None


class _Searching(Passing):
    """A store that answers each request with ``answer``."""

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        return [self.answer(request) for request in requests]

    def answer(self, request: SearchRequest) -> list[Hit]:
        return self.store.search([request])[0]


def _scored(metric: Metric, change: Callable[[float], float]) -> type[Passing]:
    class Changed(_Searching):
        def answer(self, request: SearchRequest) -> list[Hit]:
            field = _dense(request, self.schema)
            hits = super().answer(request)
            if field is None or field.metric is not metric:
                return hits
            return [replace(hit, score=change(hit.score)) for hit in hits]

    return Changed


class _CapsAtTen(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        return super().answer(request)[:10]


class _IgnoresOffset(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        return super().answer(replace(request, offset=0))


class _FiltersAfterTheCut(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        matching = {record.id for record in self.store.scan(where=request.where, parts=Parts.NONE)}
        return [hit for hit in super().answer(replace(request, where=None)) if hit.id in matching]


class _IgnoresFiltersInSearch(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        return super().answer(replace(request, where=None))


class _TiesByArrival(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        uncut = replace(request, limit=EVERYTHING, offset=0, parts=request.parts | Parts.PAYLOAD)
        [hits] = self.store.search([uncut])
        arrival = {record.id: at for at, record in enumerate(self.store.scan(parts=Parts.NONE))}
        hits.sort(key=lambda hit: (-hit.score, arrival[hit.id]))
        return hits[request.offset : request.offset + request.limit]


class _SwapsAnswers(Passing):
    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        order = sorted(range(len(requests)), key=lambda at: requests[at].where is None)
        return self.store.search([requests[at] for at in order])


class _ForgetsParts(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        return super().answer(replace(request, parts=request.parts | Parts.VECTORS))


class _ZeroQueryMatchesAll(_Searching):
    """A store where a zero query matches every record."""

    def answer(self, request: SearchRequest) -> list[Hit]:
        rank = request.rank
        if isinstance(rank, Near) and not isinstance(rank.vector, SparseVector) and not np.any(rank.vector):
            return sort_and_cut([Hit(record.id, 0.0, record.payload) for record in self.store.scan()], request)
        return super().answer(request)


class _Sparse(_Searching):
    """A store that scores sparse queries with ``score`` over all records."""

    def score(self, query: SparseVector, vector: SparseVector) -> float | None:
        raise NotImplementedError

    def answer(self, request: SearchRequest) -> list[Hit]:
        rank = request.rank
        if isinstance(rank, Fuse | Match) or not isinstance(rank.vector, SparseVector):
            return super().answer(request)
        hits = []
        for record in self.store.scan(where=request.where):
            vector = record.vectors.get(rank.field)
            score = self.score(rank.vector, vector) if isinstance(vector, SparseVector) else None
            if score is not None:
                hits.append(Hit(record.id, score, record.payload))
        return sort_and_cut(hits, request)


class _FindsWithoutOverlap(_Sparse):
    def score(self, query: SparseVector, vector: SparseVector) -> float | None:
        return query.dot(vector)


class _Saturates(_Sparse):
    def score(self, query: SparseVector, vector: SparseVector) -> float | None:
        weights = vector.to_mapping()
        score = sum(
            weight * weights[at] / (weights[at] + 1) for at, weight in query.to_mapping().items() if at in weights
        )
        return score or None


class _DropsLightTerms(_Sparse):
    def score(self, query: SparseVector, vector: SparseVector) -> float | None:
        heaviest = float(query.values.max(initial=0.0))
        heavy = SparseVector.from_mapping(
            {at: weight for at, weight in query.to_mapping().items() if weight > 0.4 * heaviest}
        )
        return heavy.dot(vector) or None


class _TenHeaviestTerms(_Sparse):
    def score(self, query: SparseVector, vector: SparseVector) -> float | None:
        return query.top(10).dot(vector) or None


class _FoldsIndices(_Sparse):
    def score(self, query: SparseVector, vector: SparseVector) -> float | None:
        folded: dict[int, float] = {}
        for at, weight in vector.to_mapping().items():
            folded[at % 2**16] = max(weight, folded.get(at % 2**16, 0.0))
        return sum(weight * folded.get(at % 2**16, 0.0) for at, weight in query.to_mapping().items()) or None


class _Texts(_Searching):
    """A store that scores texts with ``score`` over their words."""

    def score(self, query: list[str], words: list[str]) -> float:
        raise NotImplementedError

    def answer(self, request: SearchRequest) -> list[Hit]:
        rank = request.rank
        if not isinstance(rank, Match):
            return super().answer(request)
        field = self.schema.fields[rank.field]
        source = field.source if isinstance(field, TextField) else ""
        hits = []
        for record in self.store.scan(where=request.where):
            score = self.score(rank.text.lower().split(), str(record.payload.get(source) or "").split())
            if score:
                hits.append(Hit(record.id, score, record.payload))
        return sort_and_cut(hits, request)


class _CountsWords(_Texts):
    def score(self, query: list[str], words: list[str]) -> float:
        return sum(words.count(word) for word in query) / (1 + len(words))


class _FindsWordsOnce(_Texts):
    def score(self, query: list[str], words: list[str]) -> float:
        return float(len(set(query) & set(words))) / (1 + len(words))


class _WantsAllWords(_Texts):
    def score(self, query: list[str], words: list[str]) -> float:
        return float(bool(query) and set(query) <= set(words))


class _FindsBeginnings(_Texts):
    def score(self, query: list[str], words: list[str]) -> float:
        return float(sum(word.startswith(each) for each in query for word in words))


class _BlankMatchesAll(_Texts):
    """A store where a blank query matches every text."""

    def score(self, query: list[str], words: list[str]) -> float:
        return 0.1 + sum(words.count(word) for word in query) if not query or set(query) & set(words) else 0.0


class _RanksFromZero(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        rank = request.rank
        if not isinstance(rank, Fuse):
            return super().answer(request)
        scores: dict[str, float] = {}
        content: dict[str, Hit] = {}
        for leg in rank.legs:
            for at, hit in enumerate(self.store.search([replace(request, rank=leg, limit=rank.depth, offset=0)])[0]):
                scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (60 + at)
                content[hit.id] = hit
        return sort_and_cut([replace(content[name], score=score) for name, score in scores.items()], request)


class _IgnoresDepth(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        rank = request.rank
        return super().answer(replace(request, rank=replace(rank, depth=1000)) if isinstance(rank, Fuse) else request)


class _FiltersOneLeg(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        return super().answer(replace(request, where=None) if isinstance(request.rank, Fuse) else request)


class _MixesUpThreads(Passing):
    """A store that keeps the requests of a call on itself, where another thread overwrites them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.requests: Sequence[SearchRequest] = ()
        self.meeting = threading.Barrier(2)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        self.requests = requests
        with suppress(threading.BrokenBarrierError):
            self.meeting.wait(timeout=60.0)  # that of one search; two threads meet at once
        return self.store.search(self.requests)


class _ReturnsFloat64(Passing):
    """A store that returns dense vectors as float64."""

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return [
            replace(
                record,
                vectors={
                    name: vector if isinstance(vector, SparseVector) else vector.astype(np.float64)
                    for name, vector in record.vectors.items()
                },
            )
            for record in self.store.get(ids, parts=parts)
        ]


class _AcceptsUndeclaredMetric(Passing):
    """A store that does not declare the Euclidean distance, but accepts it."""

    @property
    def capabilities(self) -> Capabilities:
        capabilities = self.store.capabilities
        return replace(capabilities, metrics=capabilities.metrics - {Metric.EUCLIDEAN})


class _DeclaresWideTolerance(Passing):
    """A store that declares so wide a tolerance that any order is a tie."""

    @property
    def capabilities(self) -> Capabilities:
        capabilities = self.store.capabilities
        fields = {name: replace(each, score_rtol=0.5) for name, each in capabilities.fields.items()}
        return replace(capabilities, fields=fields)


def _as_dot(schema: Schema) -> Schema:
    fields = {
        name: replace(field, metric=Metric.DOT) if isinstance(field, DenseField) else field
        for name, field in schema.fields.items()
    }
    return replace(schema, fields=fields)


SEARCHING: Mapping[str, Broken] = {
    "dot-for-cosine": Broken(
        "the raw inner product for cosine",
        "test_dense_scores_equal_the_oracle[cosine]",
        with_schema(_as_dot),
        "expected score",
    ),
    "cosine-folded": Broken(
        "cosine folded into [0, 1]",
        "test_scores_have_their_plain_meaning[cosine]",
        wrapping(_scored(Metric.COSINE, lambda score: (1 + score) / 2)),
        r"== approx\(",
    ),
    "cosine-as-distance": Broken(
        "a distance where lower is nearer",
        "test_dense_scores_equal_the_oracle[cosine]",
        wrapping(_scored(Metric.COSINE, lambda score: 1 - score)),
        "expected score",
    ),
    "dot-folded": Broken(
        "the inner product folded above 0",
        "test_scores_have_their_plain_meaning[dot]",
        wrapping(_scored(Metric.DOT, lambda score: 1 / (1 - score) if score < 0 else score + 1)),
        r"== approx\(",
    ),
    "euclidean-positive": Broken(
        "the distance itself, not minus it",
        "test_scores_have_their_plain_meaning[euclidean]",
        wrapping(_scored(Metric.EUCLIDEAN, lambda score: -score)),
        r"== approx\(",
    ),
    "euclidean-squared": Broken(
        "the squared distance",
        "test_scores_have_their_plain_meaning[euclidean]",
        wrapping(_scored(Metric.EUCLIDEAN, lambda score: -(score**2))),
        r"== approx\(",
    ),
    "euclidean-folded": Broken(
        "the distance folded into (0, 1]",
        "test_dense_scores_equal_the_oracle[euclidean]",
        wrapping(_scored(Metric.EUCLIDEAN, lambda score: 1 / (1 + score**2))),
        "expected score",
    ),
    "half-precision": Broken(
        "scores in half precision",
        "test_dense_scores_equal_the_oracle[dot]",
        wrapping(_scored(Metric.DOT, lambda score: float(np.float16(score)))),
        "expected score",
    ),
    "capped-at-ten": Broken(
        "never more than ten hits", "test_limits_are_kept[63]", wrapping(_CapsAtTen), "expected 63 hits, got 10"
    ),
    "offset-ignored": Broken(
        "every page is the first", "test_pages_join_up", wrapping(_IgnoresOffset), "'v57' at the position of 'v60'"
    ),
    "filter-after-the-cut": Broken(
        "hits are filtered after they are limited",
        "test_filters_come_before_the_cut",
        wrapping(_FiltersAfterTheCut),
        "expected 5 hits, got 0",
    ),
    "filter-not-in-search": Broken(
        "searches ignore the filter",
        "test_filters_hold_in_search",
        wrapping(_IgnoresFiltersInSearch),
        "expected 2 hits, got 33",
    ),
    "ties-by-arrival": Broken(
        "ties are sorted by arrival", "test_ties_come_in_the_order_of_ids", wrapping(_TiesByArrival), "'m' != '10'"
    ),
    "answers-swapped": Broken(
        "the results of a batch come in another order",
        "test_requests_in_a_batch_are_answered_in_order",
        wrapping(_SwapsAnswers),
        "expected 1 hits, got 3",
    ),
    "parts-forgotten": Broken(
        "vectors are returned without being requested",
        "test_parts_are_what_was_asked",
        wrapping(_ForgetsParts),
        "Extra items in the left set",
    ),
    "zero-query": Broken(
        "a zero query matches every record",
        "test_a_zero_query_finds_nothing_under_cosine",
        wrapping(_ZeroQueryMatchesAll),
        "expected 0 hits, got 10",
    ),
    "vectors-wide": Broken(
        "vectors come back as float64", "test_dense_vectors_come_back[dot]", wrapping(_ReturnsFloat64), "same_vector"
    ),
    "sparse-without-overlap": Broken(
        "records that share no term match",
        "test_records_that_share_no_term_are_absent",
        wrapping(_FindsWithoutOverlap),
        "expected 2 hits, got 3",
    ),
    "sparse-saturated": Broken(
        "weights are saturated",
        "test_sparse_scores_equal_the_oracle[few-terms]",
        wrapping(_Saturates),
        "expected score",
    ),
    "sparse-pruned": Broken(
        "light query terms are dropped",
        "test_sparse_scores_equal_the_oracle[heavy]",
        wrapping(_DropsLightTerms),
        "expected 10 hits, got 2",
    ),
    "sparse-ten-terms": Broken(
        "only ten query terms count",
        "test_sparse_scores_equal_the_oracle[thousand-terms]",
        wrapping(_TenHeaviestTerms),
        "expected 1 hits, got 0",
    ),
    "sparse-folded": Broken(
        "indices are folded", "test_neighbouring_indices_are_apart", wrapping(_FoldsIndices), "expected 1 hits, got 4"
    ),
    "text-without-rarity": Broken(
        "rare words do not count more", "test_rarer_words_count_more", wrapping(_CountsWords), r"= max\("
    ),
    "text-without-frequency": Broken(
        "words count once", "test_more_frequent_words_count_more", wrapping(_FindsWordsOnce), "assert 0.2 > 0.2"
    ),
    "text-all-words": Broken(
        "all words must match",
        "test_matching_texts_are_those_with_a_word_of_the_query[kettle lantern]",
        wrapping(_WantsAllWords),
        "Extra items in the right set",
    ),
    "text-beginnings": Broken(
        "words match by prefix",
        "test_matching_texts_are_those_with_a_word_of_the_query[kettle]",
        wrapping(_FindsBeginnings),
        "Extra items in the left set",
    ),
    "text-blank": Broken(
        "a blank query matches everything",
        "test_queries_without_a_known_word_find_nothing[blank]",
        wrapping(_BlankMatchesAll),
        "Left contains 14 more items",
    ),
    "fusion-from-zero": Broken(
        "ranks count from 0", "test_fused_scores_equal_the_oracle[rrf]", wrapping(_RanksFromZero), "expected score"
    ),
    "fusion-without-depth": Broken(
        "legs are not cut at depth",
        "test_fused_scores_equal_the_oracle[weighted]",
        wrapping(_IgnoresDepth),
        "expected score",
    ),
    "fusion-without-filter": Broken(
        "a fused search ignores the filter",
        "test_fused_filters_hold_in_every_leg",
        wrapping(_FiltersOneLeg),
        "unexpected hit",
    ),
    "threads-mixed-up": Broken(
        "threads get each other's answers",
        "test_readers_get_their_own_answers",
        wrapping(_MixesUpThreads),
        r"expected \d+ hits, got \d+",
    ),
    "undeclared-metric-taken": Broken(
        "an undeclared metric is accepted",
        "test_undeclared_metrics_are_refused[euclidean]",
        wrapping(_AcceptsUndeclaredMetric),
        "DID NOT RAISE.*Unsupported",
        Failed,
    ),
    "tolerance-too-wide": Broken(
        "the declared tolerance accepts any score",
        "test_precision_is_declared_for_every_field",
        wrapping(_DeclaresWideTolerance),
        r"= all\(",
    ),
}
