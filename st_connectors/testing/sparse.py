"""Test that sparse legs score by the inner product over shared terms, and omit records that share no term."""

from __future__ import annotations

import numpy as np
import pytest

from st_connectors.errors import Unsupported
from st_connectors.filters import Eq, Exists, Not
from st_connectors.schema import SparseField
from st_connectors.store import Near, Record
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab
from st_core.vectors import MAX_INDEX, SparseVector

__all__ = ["Sparse"]


class Sparse(Group):
    """Learned sparse vectors and term weights."""

    @pytest.mark.parametrize("name", list(corpus.SPARSE_QUERIES))
    def test_sparse_scores_equal_the_oracle(self, lab: Lab, name: str) -> None:
        """The score is the inner product, for 1 to 1,000 terms, light and heavy weights, and the highest indices."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.library()
        query = corpus.SPARSE_QUERIES[name]
        lab.need(len(query) <= (lab.capabilities.max_query_terms or len(query)), f"{len(query)} query terms")
        pair.assert_search_agrees(*(pair.near(Near("sparse", query), limit=limit) for limit in (1, 10, corpus.SIZE)))

    def test_records_that_share_no_term_are_absent(self, lab: Lab) -> None:
        """A record without a term of the query, or without a sparse vector, is no hit, however large the limit."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.pair(lab.schema({"sparse": SparseField(optional=lab.capabilities.optional_vectors)}))
        pair.upsert(
            [
                Record("shares", {"sparse": SparseVector.from_mapping({1: 0.5, 2: 1.0})}),
                Record("next-door", {"sparse": SparseVector.from_mapping({2: 9.0, 4: 9.0, 30: 9.0})}),
                Record("faintly", {"sparse": SparseVector.from_mapping({3: 1e-6})}),
            ]
        )

        (hits,) = pair.assert_search_agrees(
            pair.near(Near("sparse", SparseVector.from_mapping({1: 2.0, 3: 1.0})), limit=100)
        )
        assert [hit.id for hit in hits] == ["shares", "faintly"]
        assert [hit.score for hit in hits] == pytest.approx([1.0, 1e-6], rel=max(1e-6, pair.rtol("sparse")))

    def test_an_empty_query_finds_nothing(self, lab: Lab) -> None:
        """A query without terms has no hits and is not an error."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.library()
        assert pair.store.search([pair.near(Near("sparse", SparseVector.from_mapping({})))]) == [[]]

    def test_sparse_filters_come_before_the_cut(self, lab: Lab) -> None:
        """A filtered sparse search returns full pages."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.library()
        query = corpus.SPARSE_QUERIES["few-terms"]
        for where in (Eq("flag", False), Exists("word"), Not(Exists("word"))):
            pair.assert_search_agrees(pair.near(Near("sparse", query), limit=3, where=where))

    def test_sparse_pages_join_up(self, lab: Lab) -> None:
        """Pages of a sparse search are parts of one ranking."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.library()
        leg = Near("sparse", corpus.SPARSE_QUERIES["few-terms"])
        pair.assert_search_agrees(*(pair.near(leg, offset=offset, limit=4) for offset in (0, 4, 8, 40, 100)))

    def test_neighbouring_indices_are_apart(self, lab: Lab) -> None:
        """Indices stay distinct: none is reduced modulo 2**15, 2**16, 2**31 or 2**32, or rounded to a float."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.pair(lab.schema({"sparse": SparseField()}))
        indices = [
            0,
            1,
            2**15,
            2**15 + 1,
            2**16,
            2**16 + 1,
            2**24,
            2**24 + 1,
            2**31 - 1,
            2**31,
            2**31 + 1,
            MAX_INDEX - 1,
            MAX_INDEX,
        ]
        pair.upsert([Record(f"i{index}", {"sparse": SparseVector.from_mapping({index: 1.0})}) for index in indices])

        for index in indices:
            (hits,) = pair.assert_search_agrees(pair.near(Near("sparse", SparseVector.from_mapping({index: 2.0}))))
            assert [hit.id for hit in hits] == [f"i{index}"]

    def test_too_many_query_terms_are_refused(self, lab: Lab) -> None:
        """If a store limits query terms, a longer query is refused, not cut silently."""
        limit = lab.capabilities.max_query_terms
        if not lab.capabilities.sparse or limit is None:
            pytest.skip("the store declares no limit")
        pair = lab.library()
        query = SparseVector.from_arrays(np.arange(limit + 1), np.ones(limit + 1))
        with pytest.raises((ValueError, Unsupported)):
            pair.store.search([pair.near(Near("sparse", query))])

    def test_undeclared_sparse_fields_are_refused(self, lab: Lab) -> None:
        """A store without sparse vectors refuses a schema with a sparse field."""
        lab.need(not lab.capabilities.sparse, "that it lacks sparse vectors")
        with pytest.raises(Unsupported):
            lab.open(lab.schema({"sparse": SparseField()})).create()

    @pytest.mark.parametrize("wrong", ["dense-for-sparse", "mapping"])
    def test_wrong_sparse_queries_are_refused(self, lab: Lab, wrong: str) -> None:
        """A query of another kind than its field raises an error."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.library()
        vector = corpus.QUERIES[0] if wrong == "dense-for-sparse" else {1: 2.0}
        with pytest.raises((ValueError, TypeError)):
            pair.store.search([pair.near(Near("sparse", vector))])  # type: ignore[arg-type]
