"""Stores that answer wrongly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from st_connectors.schema import DenseField, Metric, Schema, TextField
from st_connectors.store import Capabilities, Fuse, Hit, Match, Near, Parts, Record, SearchRequest, Store
from st_connectors.testing.base import EVERYTHING
from st_connectors.testing.broken.passing import Broken, Passing, around, in_order, with_schema
from st_core.vectors import SparseVector

__all__ = ["ANSWERING"]


def _dense(request: SearchRequest, schema: Schema) -> DenseField | None:
    field = None if isinstance(request.rank, Fuse) else schema.fields[request.rank.field]
    return field if isinstance(field, DenseField) else None


class _Searching(Passing):
    """Answers each request by ``answer``."""

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
        kept = {record.id for record in self.store.scan(where=request.where, parts=Parts.NONE)}
        return [hit for hit in super().answer(replace(request, where=None)) if hit.id in kept]


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


class _FindsForNothing(_Searching):
    """A query without direction is near to everything."""

    def answer(self, request: SearchRequest) -> list[Hit]:
        rank = request.rank
        if isinstance(rank, Near) and not isinstance(rank.vector, SparseVector) and not np.any(rank.vector):
            return in_order([Hit(record.id, 0.0, record.payload) for record in self.store.scan()], request)
        return super().answer(request)


class _Sparse(_Searching):
    """Scores sparse queries by ``score`` over all records."""

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
        return in_order(hits, request)


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
        kept = SparseVector.from_mapping(
            {at: weight for at, weight in query.to_mapping().items() if weight > 0.4 * heaviest}
        )
        return kept.dot(vector) or None


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
    """Scores texts by ``score`` over their words."""

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
        return in_order(hits, request)


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


class _LeastOfBlank(_Texts):
    """A blank query finds everything."""

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
        return in_order([replace(content[name], score=score) for name, score in scores.items()], request)


class _IgnoresDepth(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        rank = request.rank
        return super().answer(replace(request, rank=replace(rank, depth=1000)) if isinstance(rank, Fuse) else request)


class _FiltersOneLeg(_Searching):
    def answer(self, request: SearchRequest) -> list[Hit]:
        return super().answer(replace(request, where=None) if isinstance(request.rank, Fuse) else request)


class _AnswersTheOther(Passing):
    """Keeps the request of a call on the store itself, where another thread overwrites it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.requests: Sequence[SearchRequest] = ()
        self.meeting = threading.Barrier(2)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        self.requests = requests
        with suppress(threading.BrokenBarrierError):
            self.meeting.wait(timeout=1.0)
        return self.store.search(self.requests)


class _Wide(Passing):
    """Vectors come back as float64."""

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


class _SaysLess(Passing):
    """Does not declare the Euclidean distance, and does it all the same, somehow."""

    @property
    def capabilities(self) -> Capabilities:
        can = self.store.capabilities
        return replace(can, metrics=can.metrics - {Metric.EUCLIDEAN})


class _Sloppy(Passing):
    """Declares so wide a tolerance that any order is a tie."""

    @property
    def capabilities(self) -> Capabilities:
        can = self.store.capabilities
        return replace(can, fields={name: replace(each, score_rtol=0.5) for name, each in can.fields.items()})


def _as_dot(schema: Schema) -> Schema:
    fields = {
        name: replace(field, metric=Metric.DOT) if isinstance(field, DenseField) else field
        for name, field in schema.fields.items()
    }
    return replace(schema, fields=fields)


ANSWERING: Mapping[str, Broken] = {
    "dot-for-cosine": Broken(
        "the raw inner product for cosine", "test_dense_scores_equal_the_oracle[cosine]", with_schema(_as_dot)
    ),
    "cosine-folded": Broken(
        "cosine folded into [0, 1]",
        "test_scores_have_their_plain_meaning[cosine]",
        around(_scored(Metric.COSINE, lambda score: (1 + score) / 2)),
    ),
    "cosine-as-distance": Broken(
        "a distance where lower is nearer",
        "test_dense_scores_equal_the_oracle[cosine]",
        around(_scored(Metric.COSINE, lambda score: 1 - score)),
    ),
    "dot-folded": Broken(
        "the inner product folded above 0",
        "test_scores_have_their_plain_meaning[dot]",
        around(_scored(Metric.DOT, lambda score: 1 / (1 - score) if score < 0 else score + 1)),
    ),
    "euclidean-positive": Broken(
        "the distance itself, not minus it",
        "test_scores_have_their_plain_meaning[euclidean]",
        around(_scored(Metric.EUCLIDEAN, lambda score: -score)),
    ),
    "euclidean-squared": Broken(
        "the squared distance",
        "test_scores_have_their_plain_meaning[euclidean]",
        around(_scored(Metric.EUCLIDEAN, lambda score: -(score**2))),
    ),
    "euclidean-folded": Broken(
        "the distance folded into (0, 1]",
        "test_dense_scores_equal_the_oracle[euclidean]",
        around(_scored(Metric.EUCLIDEAN, lambda score: 1 / (1 + score**2))),
    ),
    "half-precision": Broken(
        "scores in half precision",
        "test_dense_scores_equal_the_oracle[dot]",
        around(_scored(Metric.DOT, lambda score: float(np.float16(score)))),
    ),
    "capped-at-ten": Broken("never more than ten hits", "test_limits_are_kept[63]", around(_CapsAtTen)),
    "offset-ignored": Broken("every page is the first", "test_pages_join_up", around(_IgnoresOffset)),
    "filter-after-the-cut": Broken(
        "filters come after the cut", "test_filters_come_before_the_cut", around(_FiltersAfterTheCut)
    ),
    "filter-not-in-search": Broken(
        "searches forget the filter", "test_filters_hold_in_search", around(_IgnoresFiltersInSearch)
    ),
    "ties-by-arrival": Broken(
        "ties come in the order of arrival", "test_ties_come_in_the_order_of_ids", around(_TiesByArrival)
    ),
    "answers-swapped": Broken(
        "a batch is answered in another order", "test_requests_in_a_batch_are_answered_in_order", around(_SwapsAnswers)
    ),
    "parts-forgotten": Broken("vectors come unasked", "test_parts_are_what_was_asked", around(_ForgetsParts)),
    "zero-query": Broken(
        "a zero query finds everything", "test_a_zero_query_finds_nothing_under_cosine", around(_FindsForNothing)
    ),
    "vectors-wide": Broken("vectors come back as float64", "test_dense_vectors_come_back[dot]", around(_Wide)),
    "sparse-without-overlap": Broken(
        "records that share no term are found",
        "test_records_that_share_no_term_are_absent",
        around(_FindsWithoutOverlap),
    ),
    "sparse-saturated": Broken(
        "weights are saturated", "test_sparse_scores_equal_the_oracle[few-terms]", around(_Saturates)
    ),
    "sparse-pruned": Broken(
        "light query terms are dropped", "test_sparse_scores_equal_the_oracle[heavy]", around(_DropsLightTerms)
    ),
    "sparse-ten-terms": Broken(
        "ten query terms count", "test_sparse_scores_equal_the_oracle[thousand-terms]", around(_TenHeaviestTerms)
    ),
    "sparse-folded": Broken("indices are folded", "test_neighbouring_indices_are_apart", around(_FoldsIndices)),
    "text-without-rarity": Broken("rare words count no more", "test_rarer_words_count_more", around(_CountsWords)),
    "text-without-frequency": Broken(
        "words count once", "test_more_frequent_words_count_more", around(_FindsWordsOnce)
    ),
    "text-all-words": Broken(
        "all words must match",
        "test_matching_texts_are_those_with_a_word_of_the_query[kettle lantern]",
        around(_WantsAllWords),
    ),
    "text-beginnings": Broken(
        "words match by their beginning",
        "test_matching_texts_are_those_with_a_word_of_the_query[kettle]",
        around(_FindsBeginnings),
    ),
    "text-blank": Broken(
        "a blank query finds everything", "test_queries_without_a_known_word_find_nothing[blank]", around(_LeastOfBlank)
    ),
    "fusion-from-zero": Broken("ranks count from 0", "test_fused_scores_equal_the_oracle[rrf]", around(_RanksFromZero)),
    "fusion-without-depth": Broken(
        "legs are not cut at depth", "test_fused_scores_equal_the_oracle[weighted]", around(_IgnoresDepth)
    ),
    "fusion-without-filter": Broken(
        "a fused search forgets the filter", "test_fused_filters_hold_in_every_leg", around(_FiltersOneLeg)
    ),
    "threads-mixed-up": Broken(
        "threads get each other's answers", "test_readers_get_their_own_answers", around(_AnswersTheOther)
    ),
    "undeclared-metric-taken": Broken(
        "what is not declared is done somehow", "test_undeclared_metrics_are_refused[euclidean]", around(_SaysLess)
    ),
    "tolerance-too-wide": Broken(
        "the declared tolerance excuses everything", "test_precision_is_declared_for_every_field", around(_Sloppy)
    ),
}
