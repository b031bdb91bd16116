"""A Hypothesis state machine: any sequence of calls leaves store and oracle with the same records."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from st_connectors.errors import NotFound
from st_connectors.filters import Eq, Filter, Not, Range
from st_connectors.schema import DenseField, FilterKind, SparseField
from st_connectors.store import Near, Record
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, Pair
from st_core.vectors import SparseVector

__all__ = ["Machine"]

_IDS = ["a", "b", "c", "A", "42", "ü 👩‍🚀", corpus.LONG_ID]


def _vectors() -> st.SearchStrategy[np.ndarray[Any, Any]]:
    numbers = st.integers(-4, 4).map(float)
    return st.lists(numbers, min_size=3, max_size=3).filter(any).map(lambda row: np.array(row, np.float32))


def _sparse() -> st.SearchStrategy[SparseVector]:
    indices = st.sampled_from([0, 1, 2, 70_000, 2**32 - 2])
    return st.dictionaries(indices, st.sampled_from([0.25, 0.5, 1.0, 3.0]), max_size=4).map(SparseVector.from_mapping)


def _payloads() -> st.SearchStrategy[dict[str, Any]]:
    numbers = st.none() | st.integers(-2, 3) | st.lists(st.integers(0, 3), max_size=2)
    return st.fixed_dictionaries(
        {}, optional={"whole": numbers, "word": st.sampled_from(["x", "X", "x y"]), "other": numbers}
    )


class Machine(Group):
    """Random sequences of calls."""

    def test_any_course_of_calls_equals_the_oracle(self, lab: Lab) -> None:
        """After any sequence of upserts, deletions, drops and creations, every result equals the oracle's."""

        class Sequence(_Sequence):
            def __init__(self) -> None:
                super().__init__(lab)

        run_state_machine_as_test(
            Sequence,
            settings=settings(
                max_examples=15,
                stateful_step_count=15,
                deadline=None,
                database=None,
                derandomize=True,
                phases=(Phase.generate,),  # fifteen steps are readable; shrinking them takes half a minute or more
                suppress_health_check=list(HealthCheck),
            ),
        )


class _Sequence(RuleBasedStateMachine):
    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.exists = False

    @initialize()
    def begin(self) -> None:
        """Start with an empty collection, shared by all sequences: creating one is slow if it is synced to disk."""
        self.pair: Pair = self.lab.keep("sequences", self._fill)
        self.pair.store.create()
        self.pair.oracle.create()
        self.pair.delete(_IDS)
        self.lacking = self.lab.capabilities.optional_vectors
        self.exists = True

    def _fill(self) -> Pair:
        declared = self.lab.capabilities
        fields: dict[str, Any] = {"dense": DenseField(3, optional=declared.optional_vectors)}
        if declared.sparse:
            fields["sparse"] = SparseField(optional=declared.optional_vectors)
        return self.lab.pair(self.lab.schema(fields, filterable={"whole": FilterKind.INT, "word": FilterKind.KEYWORD}))

    @rule()
    def create(self) -> None:
        """Create the collection, or change nothing if it exists."""
        self.pair.store.create()
        self.pair.oracle.create()
        self.exists = True

    @rule(skip=st.integers(0, 2))
    def drop(self, skip: int) -> None:
        """Drop the collection one time in three: few calls are allowed after a drop."""
        if skip:
            return
        self.pair.store.drop()
        self.pair.oracle.drop()
        self.exists = False

    @precondition(lambda self: self.exists)
    @rule(
        rows=st.lists(
            st.tuples(st.sampled_from(_IDS), _vectors(), _sparse(), _payloads(), st.integers(0, 5)), max_size=6
        )
    )
    def upsert(self, rows: list[tuple[str, Any, SparseVector, dict[str, Any], int]]) -> None:
        """Store records, some with equal ids, some without vectors."""
        records = []
        for name, dense, sparse, payload, lacks in rows:
            vectors: dict[str, Any] = {"dense": dense, "sparse": sparse}
            if lacks == 0 and self.lacking:
                del vectors["dense"]
            vectors = {field: vector for field, vector in vectors.items() if field in self.pair.store.schema.fields}
            records.append(Record(name, vectors, payload))
        mine, theirs = self.pair.store.upsert(records), self.pair.oracle.upsert(records)
        assert [(one.position, one.id) for one in mine] == [(one.position, one.id) for one in theirs]

    @precondition(lambda self: self.exists)
    @rule(ids=st.lists(st.sampled_from(_IDS), max_size=3))
    def delete(self, ids: list[str]) -> None:
        """Delete some records."""
        self.pair.store.delete(ids)
        self.pair.oracle.delete(ids)

    @precondition(lambda self: self.exists)
    @rule(
        vector=_vectors(), sparse=_sparse(), limit=st.integers(1, 9), offset=st.integers(0, 3), where=st.integers(0, 3)
    )
    def search(self, vector: Any, sparse: SparseVector, limit: int, offset: int, where: int) -> None:
        """Search every kind of vector, with and without a filter."""
        record_filter: Filter | None = [None, Eq("whole", 1), Not(Eq("word", "x")), Range("whole", gte=0, lt=3)][where]
        self.pair.store.refresh()
        requests = [self.pair.near(Near("dense", vector), limit=limit, offset=offset, where=record_filter)]
        if "sparse" in self.pair.store.schema.fields:
            requests.append(self.pair.near(Near("sparse", sparse), limit=limit, offset=offset, where=record_filter))
        self.pair.assert_search_agrees(*requests)

    @invariant()
    def same_records(self) -> None:
        """After every step, store and oracle have the same records, or the collection does not exist."""
        if not hasattr(self, "pair"):
            return
        if self.exists:
            self.pair.store.refresh()
            self.pair.assert_records_agree()
            return
        try:
            self.pair.store.count()
        except NotFound:
            return
        raise AssertionError("count after drop must raise NotFound")
