"""Dense legs: scores with one meaning, exact pages, and no unexpected hits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from st_connectors.errors import Unsupported
from st_connectors.filters import Eq, Range
from st_connectors.schema import DenseField, Metric, Quantization
from st_connectors.store import Candidates, Default, Effort, Near, Record, SearchRequest
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab

__all__ = ["Dense"]


class Dense(Group):
    """Nearest neighbours under each metric."""

    @pytest.mark.parametrize("metric", list(Metric))
    def test_dense_scores_equal_the_oracle(self, lab: Lab, metric: str) -> None:
        """Scores are cosine in [-1, 1], inner product, or minus the Euclidean distance, for vectors of many lengths."""
        pair = lab.metric(Metric(metric))
        pair.assert_search_agrees(*(pair.near(Near("dense", query), limit=corpus.SIZE) for query in corpus.QUERIES))

    @pytest.mark.parametrize("metric", list(Metric))
    def test_scores_have_their_plain_meaning(self, lab: Lab, metric: str) -> None:
        """Scores equal hand-computed ones for the query (3, 4) and records at (6, 8), (-3, -4), (4, -3) and (0, 1)."""
        lab.need(metric in lab.capabilities.metrics, f"the metric {metric}")
        pair = lab.pair(lab.schema({"dense": DenseField(2, Metric(metric))}))
        points = {"same-way": (6, 8), "opposite": (-3, -4), "across": (4, -3), "up": (0, 1)}
        pair.upsert([Record(name, {"dense": np.array(point, np.float32)}) for name, point in points.items()])
        wanted = {
            Metric.COSINE: {"same-way": 1.0, "up": 0.8, "across": 0.0, "opposite": -1.0},
            Metric.DOT: {"same-way": 50.0, "up": 4.0, "across": 0.0, "opposite": -25.0},
            Metric.EUCLIDEAN: {"up": -(18**0.5), "same-way": -5.0, "across": -(50**0.5), "opposite": -10.0},
        }[Metric(metric)]

        (hits,) = pair.store.search([pair.near(Near("dense", np.array([3, 4], np.float32)))])
        assert [hit.id for hit in hits] == sorted(wanted, key=lambda name: -wanted[name])
        tolerance = max(pair.rtol("dense"), 1e-6) * max(map(abs, wanted.values()))
        assert [hit.score for hit in hits] == pytest.approx([wanted[hit.id] for hit in hits], rel=0, abs=tolerance)

    @pytest.mark.parametrize("metric", list(Metric))
    def test_undeclared_metrics_are_refused(self, lab: Lab, metric: str) -> None:
        """A schema with a metric that the store does not declare is refused before a collection is created."""
        lab.need(metric not in lab.capabilities.metrics, "that it lacks this metric")
        with pytest.raises(Unsupported):
            lab.open(lab.schema({"dense": DenseField(corpus.DIMENSION, Metric(metric))})).create()

    @pytest.mark.parametrize("quantization", list(Quantization))
    def test_undeclared_quantizations_are_refused(self, lab: Lab, quantization: str) -> None:
        """A schema with a quantization that the store does not declare is refused before a collection is created."""
        lab.need(quantization not in lab.capabilities.quantizations, "that it lacks this quantization")
        schema = lab.schema({"dense": DenseField(corpus.DIMENSION, quantization=Quantization(quantization))})
        with pytest.raises(Unsupported):
            lab.open(schema).create()

    @pytest.mark.parametrize("quantization", [each for each in Quantization if each is not Quantization.NONE])
    def test_quantized_fields_are_exact_at_exact_effort(self, lab: Lab, quantization: str) -> None:
        """With quantization, exact effort still scores the original vectors, and they are returned unchanged."""
        lab.need(quantization in lab.capabilities.quantizations, f"the quantization {quantization}")
        lab.need("exact" in lab.capabilities.efforts, "exact effort")
        rng = np.random.default_rng(29)
        rows = rng.standard_normal((120, 96)).astype(np.float32)
        pair = lab.pair(lab.schema({"dense": DenseField(96, quantization=Quantization(quantization))}))
        pair.upsert([Record(f"r{row:03d}", {"dense": vector}) for row, vector in enumerate(rows)])

        pair.assert_records_agree()
        pair.assert_search_agrees(*(pair.near(Near("dense", row + np.float32(0.3)), limit=20) for row in rows[:5]))

    def test_dimensions_over_the_limit_are_refused(self, lab: Lab) -> None:
        """A schema with more dimensions than the store declares is refused before a collection is created."""
        limit = lab.capabilities.max_dimension
        if limit is None:
            pytest.skip("the store declares no limit")
        with pytest.raises(Unsupported):
            lab.open(lab.schema({"dense": DenseField(limit + 1)})).create()

    @pytest.mark.parametrize("limit", [1, 10, 63, 64, 65, 1000])
    def test_limits_are_kept(self, lab: Lab, limit: int) -> None:
        """A search returns as many hits as requested, or as many as exist."""
        pair = lab.metric(Metric.COSINE)
        limit = min(limit, lab.capabilities.max_limit or limit)
        pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[1]), limit=limit))

    def test_pages_join_up(self, lab: Lab) -> None:
        """Pages by ``offset`` are parts of one ranking; past its end they are empty."""
        pair = lab.metric(Metric.COSINE)
        leg = Near("dense", corpus.QUERIES[3])
        pair.assert_search_agrees(
            *(pair.near(leg, offset=offset, limit=7) for offset in (0, 7, 14, 21, 56, 60, 63, 64, 200))
        )

    def test_requests_in_a_batch_are_answered_in_order(self, lab: Lab) -> None:
        """A batch returns the hits of each request, in the order of the requests and independently of each other."""
        pair = lab.library()
        pair.assert_search_agrees(
            *(
                pair.near(Near("dense", query), limit=1 + 2 * row, where=Eq("flag", True) if row % 2 else None)
                for row, query in enumerate(corpus.QUERIES)
            )
        )

    def test_filters_come_before_the_cut(self, lab: Lab) -> None:
        """A filtered search returns full pages: records are filtered before hits are limited."""
        pair = lab.library()
        for where in (Eq("whole", 3), Eq("word", "birch"), Range("real", gte=2.0, lt=4.0)):
            pair.assert_search_agrees(
                *(pair.near(Near("dense", query), limit=5, where=where) for query in corpus.QUERIES)
            )

    def test_ties_come_in_the_order_of_ids(self, lab: Lab) -> None:
        """Records with equal scores are sorted by id, not by arrival."""
        pair = lab.pair()
        vector, other = corpus.dense_vectors(2)
        names = ["m", "b", "z", "a", "B", "10", "9", "é"]
        pair.upsert([Record(name, {"dense": vector}) for name in names] + [Record("far", {"dense": other})])

        (hits,) = pair.store.search([pair.near(Near("dense", vector), limit=20)])
        assert [hit.id for hit in hits] == [*sorted(names), "far"]

    def test_length_does_not_count_under_cosine(self, lab: Lab) -> None:
        """A query scaled up or down by a thousand returns the same hits with the same scores."""
        pair = lab.metric(Metric.COSINE)
        query = corpus.QUERIES[4]
        answers = pair.assert_search_agrees(
            *(pair.near(Near("dense", query * np.float32(factor))) for factor in (1, 1e3, 1e-3))
        )
        assert [[hit.id for hit in hits] for hits in answers[1:]] == [[hit.id for hit in answers[0]]] * 2

    def test_a_zero_query_finds_nothing_under_cosine(self, lab: Lab) -> None:
        """A zero vector as a query has no hits under cosine."""
        pair = lab.metric(Metric.COSINE)
        pair.assert_search_agrees(pair.near(Near("dense", np.zeros(corpus.DIMENSION, np.float32))))

    @pytest.mark.parametrize(
        "wrong", ["limit-0", "limit-negative", "offset-negative", "dimension", "nan", "field", "sparse-for-dense"]
    )
    def test_wrong_requests_are_refused(self, lab: Lab, wrong: str) -> None:
        """An invalid request raises an error before anything is sent."""
        pair = lab.library()
        good = pair.near(Near("dense", corpus.QUERIES[0]))
        request = {
            "limit-0": replace(good, limit=0),
            "limit-negative": replace(good, limit=-1),
            "offset-negative": replace(good, offset=-1),
            "dimension": replace(good, rank=Near("dense", np.ones(corpus.DIMENSION - 1, np.float32))),
            "nan": replace(good, rank=Near("dense", np.full(corpus.DIMENSION, np.nan, np.float32))),
            "field": replace(good, rank=Near("nowhere", corpus.QUERIES[0])),
            "sparse-for-dense": replace(good, rank=Near("dense", corpus.SPARSE_QUERIES["one-term"])),
        }[wrong]
        with pytest.raises((ValueError, TypeError), match=r".{10}"):
            pair.store.search([good, request])

    def test_limits_over_the_stores_window_are_refused(self, lab: Lab) -> None:
        """If a store limits the number of hits, a larger request is refused, not cut silently."""
        limit = lab.capabilities.max_limit
        if limit is None:
            pytest.skip("the store declares no limit")
        pair = lab.metric(Metric.COSINE)
        with pytest.raises((ValueError, Unsupported)):
            pair.store.search([pair.near(Near("dense", corpus.QUERIES[0]), limit=limit, offset=1)])

    def test_default_effort_finds_nearly_all(self, lab: Lab) -> None:
        """At default effort, recall at ten is at least 0.99 on this corpus, and common hits have the same scores."""
        pair = lab.metric(Metric.COSINE)
        efforts: list[Effort] = [Default(), *([Candidates(64)] if "candidates" in lab.capabilities.efforts else [])]
        for effort in efforts:
            requests = [SearchRequest(Near("dense", query), effort=effort) for query in corpus.QUERIES]
            wanted = pair.oracle.search(requests)
            got = pair.store.search(requests)
            common_count = 0
            for mine, theirs in zip(got, wanted, strict=True):
                scores = {hit.id: hit.score for hit in theirs}
                common = [hit for hit in mine if hit.id in scores]
                common_count += len(common)
                assert [hit.score for hit in common] == pytest.approx(
                    [scores[hit.id] for hit in common], abs=pair.rtol("dense")
                )
            assert common_count >= 0.99 * 10 * len(requests)

    def test_undeclared_efforts_are_refused(self, lab: Lab) -> None:
        """An effort that the store does not declare is refused, not replaced by another."""
        lab.need("candidates" not in lab.capabilities.efforts, "that it lacks an effort")
        pair = lab.metric(Metric.COSINE)
        with pytest.raises(Unsupported):
            pair.store.search([replace(pair.near(Near("dense", corpus.QUERIES[0])), effort=Candidates(50))])
