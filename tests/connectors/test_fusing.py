"""Hybrid requests against the formulas over the store's own single-leg answers."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_connectors.filters import Range
from st_connectors.fusion import fuse
from st_connectors.layers.fusing import fusing
from st_connectors.memory import MemoryStore
from st_connectors.schema import (
    DenseField,
    FilterKind,
    FusionMethod,
    Metric,
    Rrf,
    Schema,
    SparseField,
    TextField,
    Weighted,
)
from st_connectors.store import Candidates, Fuse, LegHit, Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema(
    "c",
    {"dense": DenseField(4), "dot": DenseField(4, Metric.DOT), "sparse": SparseField(), "text": TextField()},
    {"n": FilterKind.INT},
)
WORDS = ("red", "blue", "fish", "bird", "tree")


class Watched(MemoryStore):
    """Notes what is asked of it, and can pretend to fuse."""

    def __init__(self, native=()):
        super().__init__(uuid.uuid4().hex, SCHEMA)
        self.create()
        self._capabilities = replace(self._capabilities, fusion=frozenset(native))
        self.searched, self.got = [], []

    def search(self, requests):
        self.searched.append(list(requests))
        return super().search(
            [replace(one, rank=one.rank.legs[0]) if isinstance(one.rank, Fuse) else one for one in requests]
        )

    def get(self, ids, *, parts=Parts.ALL):
        self.got.append((list(ids), parts))
        return super().get(ids, parts=parts)


def filled(native=(), count=60):
    store = Watched(native)
    rng = np.random.default_rng(7)
    rows = []
    for at in range(count):
        vectors = {"dense": rng.normal(size=4).astype(np.float32), "dot": rng.normal(size=4).astype(np.float32)}
        if at % 3:
            vectors["sparse"] = SparseVector.from_mapping(
                {int(key): float(rng.integers(1, 4)) for key in rng.choice(6, 2, replace=False)}
            )
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(1, 5))))
        rows.append(Record(f"r{at:02}", vectors, {"text": text, "n": at}))
    store.upsert(rows)
    return store


STORE = filled()
VECTOR = np.array([1.0, -0.5, 0.25, 2.0], dtype=np.float32)
LEGS = (
    Near("dense", VECTOR),
    Near("sparse", SparseVector.from_mapping({0: 1.0, 3: 2.0})),
    Match("text", "red fish"),
    Near("dot", VECTOR),
)


def wished(legs, method, depth, offset, limit, where=None):
    """Ids, scores and legs by the definition: search each leg to its depth, fuse, cut."""
    found = [STORE.search([SearchRequest(leg, limit=depth, where=where)])[0] for leg in legs]
    order = fuse([{hit.id: hit.score for hit in hits} for hits in found], method)[offset : offset + limit]
    return [
        (
            key,
            score,
            tuple(
                LegHit(n, leg.field, at, hit.score)
                for n, (leg, hits) in enumerate(zip(legs, found, strict=True))
                for at, hit in enumerate(hits, 1)
                if hit.id == key
            ),
        )
        for key, score in order
    ]


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(LEGS), min_size=1, max_size=4).map(tuple),
    st.sampled_from([5, 20, 100]),
    st.integers(0, 3),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, Range("n", lt=20)]),
)
def test_a_hybrid_answer_is_the_fusion_of_its_legs(legs, depth, offset, limit, by_rank, with_weights, where):
    """Order, scores, per-leg ranks and scores, payload: all as defined, for any legs, filter and page."""
    weights = tuple(1.0 + at for at in range(len(legs)))
    method = Rrf(60, weights if with_weights else None) if by_rank else Weighted(weights)
    request = SearchRequest(Fuse(legs, depth, method), limit, min(offset, depth - limit), where)

    (page,) = fusing(STORE).search([request])

    assert [(hit.id, hit.score, hit.legs) for hit in page] == wished(legs, method, depth, request.offset, limit, where)
    assert [dict(hit.payload) for hit in page] == [record.payload for record in STORE.get([hit.id for hit in page])]


def test_a_single_leg_tells_its_rank_when_asked():
    """Ranks count from 1 over the whole order, not over the page."""
    request = SearchRequest(LEGS[0], limit=2, offset=3)
    plain = STORE.search([request])[0]

    told, untold = fusing(STORE).search([request, replace(request, parts=Parts.PAYLOAD)])

    assert [hit.legs for hit in told] == [
        (LegHit(0, "dense", 4, plain[0].score),),
        (LegHit(0, "dense", 5, plain[1].score),),
    ]
    assert [(hit.id, hit.legs) for hit in untold] == [(hit.id, ()) for hit in plain]


def test_all_legs_of_all_requests_are_one_search():
    """Batch first: one round trip, whatever the number of requests."""
    store = filled()
    fusing(store).search([SearchRequest(Fuse(LEGS[:2])), SearchRequest(LEGS[2]), SearchRequest(Fuse(LEGS))])

    (sent,) = store.searched
    assert [request.rank for request in sent] == [*LEGS[:2], LEGS[2], *LEGS]
    assert [request.limit for request in sent] == [100, 100, 10, 100, 100, 100, 100]


def test_filter_and_effort_reach_every_leg():
    """Each leg is filtered and searched as the request says, from its first hit on."""
    store = filled()
    where = Range("n", lt=20)
    fusing(store).search([SearchRequest(Fuse(LEGS[:2], 30), limit=5, offset=10, where=where, effort=Candidates(64))])

    assert [(one.where, one.effort, one.limit, one.offset) for one in store.searched[0]] == [
        (where, Candidates(64), 30, 0)
    ] * 2


def test_deep_legs_are_read_without_content_and_the_page_by_id():
    """Content of a hundred candidates a leg is not moved for a page of three."""
    store = filled()
    (page,) = fusing(store).search([SearchRequest(Fuse(LEGS[:2]), limit=3, parts=Parts.ALL)])

    assert {one.parts for one in store.searched[0]} == {Parts.NONE}
    assert store.got == [([hit.id for hit in page], Parts.PAYLOAD | Parts.VECTORS)]
    assert [hit.vectors["dense"].tolist() for hit in page] == [
        STORE.get([hit.id])[0].vectors["dense"].tolist() for hit in page
    ]


def test_shallow_legs_bring_their_content():
    """No second call where the legs are hardly larger than the page."""
    store = filled()
    (page,) = fusing(store).search([SearchRequest(Fuse(LEGS[:2], 10), limit=10)])

    assert store.got == []
    assert [hit.payload["n"] for hit in page] == [int(hit.id[1:]) for hit in page]


def test_nothing_is_read_that_is_not_asked_for():
    """Without content one call does."""
    store = filled()
    (page,) = fusing(store).search([SearchRequest(Fuse(LEGS[:2]), limit=3, parts=Parts.NONE)])

    assert store.got == []
    assert [(dict(hit.payload), dict(hit.vectors), hit.legs) for hit in page] == [({}, {}, ())] * 3


def test_pages_asked_together_get_only_their_own_parts():
    """One request's wish for vectors does not show in another's hits."""
    requests = [SearchRequest(Fuse(LEGS[:2]), limit=2, parts=parts) for parts in (Parts.PAYLOAD, Parts.VECTORS)]
    payloads, vectors = fusing(STORE).search(requests)

    assert all(hit.payload and not hit.vectors for hit in payloads)
    assert all(hit.vectors and not hit.payload for hit in vectors)


def test_a_record_deleted_between_the_calls_is_left_out():
    """A hit is never shown without its content."""

    class Losing(Watched):
        def get(self, ids, *, parts=Parts.ALL):
            self.delete([ids[0]])
            return super().get(ids, parts=parts)

    full = fusing(STORE).search([SearchRequest(Fuse(LEGS[:2]), limit=3)])[0]
    store = Losing()
    store.upsert(list(STORE.scan()))

    (page,) = fusing(store).search([SearchRequest(Fuse(LEGS[:2]), limit=3)])

    assert [hit.id for hit in page] == [hit.id for hit in full[1:]]


EMPTY = SparseVector.from_mapping({})


@pytest.mark.parametrize("leg", [Near("sparse", EMPTY), Near("dense", np.zeros(4, np.float32)), Match("text", " \n")])
def test_legs_that_can_find_nothing_are_not_sent(leg):
    """An empty or zero vector and a blank text give no hits and no call; the other legs are unchanged."""
    store = filled()
    alone, hybrid = fusing(store).search([SearchRequest(leg), SearchRequest(Fuse((leg, LEGS[3])))])

    assert alone == []
    assert [[one.rank for one in sent] for sent in store.searched] == [[LEGS[3]]]
    assert {each.leg for hit in hybrid for each in hit.legs} == {1}


def test_a_zero_query_is_a_query_where_length_counts():
    """The inner product with zero is zero, for every record."""
    (page,) = fusing(STORE).search([SearchRequest(Near("dot", np.zeros(4, np.float32)), limit=2)])
    assert [(hit.id, hit.score) for hit in page] == [("r00", 0.0), ("r01", 0.0)]


@pytest.mark.parametrize(
    ("method", "declared"),
    [
        (Rrf(), FusionMethod.RRF),
        (Rrf(60, (1.0, 2.0)), FusionMethod.RRF_WEIGHTED),
        (Weighted((1.0, 1.0)), FusionMethod.WEIGHTED),
    ],
)
def test_the_stores_own_fusion_is_used_where_declared_and_legs_are_not_asked(method, declared):
    """The request goes as it is; with leg ranks, or undeclared, it is fused here."""
    request = SearchRequest(Fuse(LEGS[:2], method=method), parts=Parts.PAYLOAD)

    for native, parts, whole in (
        ({declared}, Parts.PAYLOAD, True),
        ({declared}, Parts.PAYLOAD | Parts.LEGS, False),
        (set(FusionMethod) - {declared}, Parts.PAYLOAD, False),
    ):
        store = filled(native)
        fusing(store).search([replace(request, parts=parts)])
        assert isinstance(store.searched[0][0].rank, Fuse) is whole


@pytest.mark.parametrize(
    "limits", [{}, {"max_fused_legs": 2}, {"max_query_terms": 2}, {"max_fused_legs": 3, "max_query_terms": 4}]
)
def test_what_is_too_much_for_the_stores_own_fusion_is_fused_here(limits):
    """More legs or terms than it takes, and a single leg, which is no fusion, go leg by leg."""
    few, many = SparseVector.from_mapping({1: 1.0}), SparseVector.from_mapping({1: 1.0, 2: 1.0})
    dense = Near("dense", np.ones(4, np.float32))
    for legs in ((dense,), (dense, Near("sparse", few)), (Near("sparse", many), Near("sparse", few), dense)):
        store = filled({FusionMethod.RRF})
        store._capabilities = replace(store._capabilities, **limits)
        fusing(store).search([SearchRequest(Fuse(legs), parts=Parts.PAYLOAD)])
        terms = sum(len(leg.vector) for leg in legs if leg.field == "sparse")
        fits = 2 <= len(legs) <= limits.get("max_fused_legs", 9) and terms <= limits.get("max_query_terms", 9)
        assert isinstance(store.searched[0][0].rank, Fuse) is fits


def test_everything_else_passes_through():
    """The wrapper only concerns searches."""
    store = filled(count=3)
    wrapped = fusing(store)

    assert (wrapped.schema, wrapped.capabilities, wrapped.count(Range("n", gte=1))) == (
        store.schema,
        store.capabilities,
        2,
    )
    assert wrapped.upsert([Record("x")]) == []
    wrapped.delete(["r00"])
    assert [record.id for record in wrapped.scan()] == ["r01", "r02", "x"]
    wrapped.drop()
    wrapped.create()
    wrapped.refresh()
    wrapped.close()
    assert wrapped.get(["x"]) == []
