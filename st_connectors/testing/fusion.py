"""Hybrid search: fused scores equal the reference formulas, whether the store or a layer computes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from st_connectors.filters import Eq
from st_connectors.schema import DenseField, Fusion, Rrf, TextField, Weighted
from st_connectors.store import Fuse, Leg, Match, Near, Parts, Record, SearchRequest
from st_connectors.testing import corpus
from st_connectors.testing.agree import assert_hits_agree
from st_connectors.testing.base import Group, Lab, Pair
from st_connectors.testing.reference import fused
from st_core.vectors import SparseVector

__all__ = ["Fusing"]

_METHODS: Mapping[str, Fusion] = {
    "rrf": Rrf(),
    "rrf-k-1": Rrf(k=1),
    "rrf-weights": Rrf(k=20, weights=(0.3, 2.0)),
    "weighted": Weighted((0.25, 0.75)),
    "weighted-one-leg-off": Weighted((0.0, 1.0)),
}


class Fusing(Group):
    """Several legs fused into one ranking."""

    def _legs(self, lab: Lab, row: int = 0) -> tuple[Leg, Leg]:
        lab.need(lab.capabilities.sparse, "sparse vectors")
        return Near("dense", corpus.QUERIES[row]), Near("sparse", corpus.SPARSE_QUERIES["few-terms"])

    @pytest.mark.parametrize("method", list(_METHODS))
    def test_fused_scores_equal_the_oracle(self, lab: Lab, method: str) -> None:
        """Order and scores equal the reference over the oracle's legs, each limited to ``depth``."""
        pair = lab.library()
        requests = [
            pair.near(Fuse(self._legs(lab, row), depth, _METHODS[method]), limit=limit, offset=offset)
            for row, (depth, limit, offset) in enumerate([(10, 10, 0), (100, 20, 0), (7, 3, 4), (30, 5, 5)])
        ]
        pair.assert_search_agrees(*requests)

    @pytest.mark.parametrize("method", list(_METHODS))
    def test_fused_legs_are_told(self, lab: Lab, method: str) -> None:
        """On request, each hit reports the legs that contain it, with rank and score."""
        pair = lab.library()
        request = SearchRequest(Fuse(self._legs(lab, 2), 12, _METHODS[method]), effort=pair.exact(), parts=Parts.ALL)
        (hits,) = pair.assert_search_agrees(request)

        alone = [
            {hit.id: (rank, hit.score) for rank, hit in enumerate(hits_of_leg, 1)}
            for hits_of_leg in pair.store.search([pair.near(leg, limit=12) for leg in self._legs(lab, 2)])
        ]
        for hit in hits:
            assert {leg.leg: leg.rank for leg in hit.legs} == {
                at: ranks[hit.id][0] for at, ranks in enumerate(alone) if hit.id in ranks
            }

    @pytest.mark.parametrize("method", list(_METHODS))
    def test_a_leg_without_hits_changes_nothing(self, lab: Lab, method: str) -> None:
        """A leg without hits, or with an empty query, keeps the order of the other leg and is not an error."""
        dense, _ = self._legs(lab)
        pair = lab.library()
        for nothing in (corpus.SPARSE_QUERIES["nothing-shared"], SparseVector.from_mapping({})):
            (hits,) = pair.assert_search_agrees(pair.near(Fuse((dense, Near("sparse", nothing)), 10, _METHODS[method])))
            alone = pair.store.search([pair.near(dense)])[0] if method != "weighted-one-leg-off" else []
            assert [hit.id for hit in hits] == [hit.id for hit in alone]

    def test_fused_filters_hold_in_every_leg(self, lab: Lab) -> None:
        """No leg contributes a record that does not match the filter."""
        pair = lab.library()
        for where in (Eq("flag", True), Eq("word", "birch"), Eq("whole", 77)):
            pair.assert_search_agrees(pair.near(Fuse(self._legs(lab), 20, Rrf()), where=where))

    def test_equal_fused_scores_come_in_the_order_of_ids(self, lab: Lab) -> None:
        """Records at mirrored ranks have equal reciprocal-rank scores and are sorted by id."""
        pair = lab.library()
        dense = corpus.QUERIES[0]
        (hits,) = pair.assert_search_agrees(
            pair.near(Fuse((Near("dense", dense), Near("dense", -dense)), 30, Rrf()), limit=30)
        )
        assert len({hit.score for hit in hits}) < len(hits)

    def test_text_legs_are_fused_by_the_formula(self, lab: Lab) -> None:
        """With a text leg, the fused ranking equals the reference over the store's own two legs."""
        lab.need(lab.capabilities.text, "text")
        vectors = corpus.dense_vectors(len(corpus.SENTENCES), seed=41)
        store = lab.new(lab.schema({"dense": DenseField(corpus.DIMENSION), "text": TextField()}))
        store.upsert(
            [
                Record(name, {"dense": vector}, {"text": text})
                for (name, text), vector in zip(corpus.SENTENCES.items(), vectors, strict=True)
            ]
        )
        store.refresh()
        rank = Fuse((Near("dense", corpus.QUERIES[0]), Match("text", "kettle timber")), 12, Rrf(k=5))
        alone = store.search([SearchRequest(leg, limit=12, parts=Parts.PAYLOAD) for leg in rank.legs])
        assert len({hit.score for hit in alone[1]}) == 5, "the text leg must have no ties"

        for parts in (Parts.PAYLOAD, Parts.PAYLOAD | Parts.LEGS):
            wanted = [hit if Parts.LEGS in parts else replace(hit, legs=()) for hit in fused(rank, alone)]
            (hits,) = store.search([SearchRequest(rank, limit=12, parts=parts)])
            assert_hits_agree(hits, wanted, offset=0, limit=12, rtol=1e-6)

    def test_three_legs_are_fused(self, lab: Lab) -> None:
        """More than two legs are fused, also two legs of the same field."""
        pair = lab.library()
        one, two = self._legs(lab)
        pair.assert_search_agrees(
            pair.near(Fuse((one, two, Near("dense", corpus.QUERIES[3])), 40, Rrf(weights=(1, 2, 0.5))))
        )

    @pytest.mark.parametrize("wrong", ["page-over-depth", "no-legs", "weights", "dimension"])
    def test_wrong_fusions_are_refused(self, lab: Lab, wrong: str) -> None:
        """A page beyond ``depth``, no legs, and a wrong number of weights raise an error."""
        pair = lab.library()
        leg = Near("dense", corpus.QUERIES[0])
        request = {
            "page-over-depth": pair.near(Fuse((leg, leg), 10), limit=6, offset=5),
            "no-legs": pair.near(Fuse((), 10)),
            "weights": pair.near(Fuse((leg, leg), 10, Weighted((1.0,)))),
            "dimension": pair.near(Fuse((leg, Near("dense", np.ones(3, np.float32))), 10)),
        }[wrong]
        with pytest.raises((ValueError, TypeError)):
            pair.store.search([request])

    def test_batches_mix_single_and_fused_requests(self, lab: Lab) -> None:
        """Each request of a batch gets its own hits, fused or not."""
        pair: Pair = lab.library()
        one, two = self._legs(lab)
        pair.assert_search_agrees(
            pair.near(one, limit=3),
            pair.near(Fuse((one, two), 20), limit=4),
            pair.near(two, limit=5, offset=2),
            pair.near(Fuse((two, one), 9, Weighted((0.5, 0.5))), limit=2),
        )
