"""Writes: records are replaced as a whole, batches arrive complete, rejections are named, and inputs do not change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from st_connectors.errors import Permanent
from st_connectors.schema import DenseField, FilterKind, SparseField, TextField
from st_connectors.store import Match, Near, Record, SearchRequest
from st_connectors.testing import corpus
from st_connectors.testing.agree import same_json
from st_connectors.testing.base import Group, Lab, dense_records

__all__ = ["Writes"]

_BAD: Mapping[str, Callable[[Record], Record]] = {
    "empty-id": lambda record: replace(record, id=""),
    "id-of-513-bytes": lambda record: replace(record, id=corpus.LONG_ID + "c"),
    "nan-in-payload": lambda record: replace(record, payload={"a": [float("nan")]}),
    "infinity-in-payload": lambda record: replace(record, payload={"a": {"b": float("inf")}}),
    "integer-over-64-bits": lambda record: replace(record, payload={"a": 2**63}),
    "not-json": lambda record: replace(record, payload={"a": {1, 2}}),
    "key-not-text": lambda record: replace(record, payload={"a": {1: 2}}),
    "wrong-dimension": lambda record: replace(record, vectors={"dense": np.ones(corpus.DIMENSION + 1, np.float32)}),
    "nan-in-vector": lambda record: replace(record, vectors={"dense": np.full(corpus.DIMENSION, np.nan, np.float32)}),
    "infinity-in-vector": lambda record: replace(
        record, vectors={"dense": np.full(corpus.DIMENSION, np.inf, np.float32)}
    ),
    "unknown-field": lambda record: replace(record, vectors={**record.vectors, "other": np.ones(3, np.float32)}),
    "filterable-of-another-kind": lambda record: replace(record, payload={"whole": "seven"}),
}


class Writes(Group):
    """Upsert, delete and refresh."""

    def test_upsert_replaces_the_whole_record(self, lab: Lab) -> None:
        """An upsert removes every payload key, nested key and vector of the old record."""
        has_optional_vectors = lab.capabilities.optional_vectors
        fields = {"dense": DenseField(corpus.DIMENSION, optional=has_optional_vectors)}
        if has_optional_vectors:
            fields["second"] = DenseField(3)
        pair = lab.pair(lab.schema(fields))
        vector = corpus.dense_vectors(2)
        both = (
            {"dense": vector[0], "second": np.array([1, 2, 3], np.float32)}
            if has_optional_vectors
            else {"dense": vector[0]}
        )
        pair.upsert([Record("a", both, {"old": 1, "nested": {"x": 1}, "extra": "no"}), Record("b", both, {"old": 2})])
        pair.upsert([Record("a", {"dense": vector[1]}, {"nested": {"y": 2}})])

        pair.assert_records_agree()
        pair.assert_search_agrees(pair.near(Near("dense", vector[1])))

    def test_upsert_replaces_vectors_in_the_index(self, lab: Lab) -> None:
        """After a record is replaced, searches use only its new vectors, dense and sparse."""
        can = lab.capabilities
        fields: dict[str, Any] = {"dense": DenseField(corpus.DIMENSION)}
        if can.sparse:
            fields["sparse"] = SparseField()
        pair = lab.pair(lab.schema(fields))
        both: dict[str, Any] = {"dense": corpus.dense_vectors(40), "sparse": corpus.sparse_vectors(40)}
        for turn in range(2):
            pair.upsert(
                [
                    Record(
                        f"r{row}",
                        {name: both[name][row + 20 * turn] for name in fields},
                        {"turn": turn},
                    )
                    for row in range(20)
                ]
            )

        pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[0]), limit=30))
        if can.sparse:
            for query in corpus.SPARSE_QUERIES.values():
                pair.assert_search_agrees(pair.near(Near("sparse", query), limit=30))

    def test_the_last_of_equal_ids_wins(self, lab: Lab) -> None:
        """Within a batch, the last record with an id is the one that is stored."""
        pair = lab.pair()
        first, second, third = dense_records(3)
        pair.upsert([replace(first, id="same"), second, replace(third, id="same", payload={"last": True})])

        pair.assert_records_agree()

    def test_an_empty_batch_does_nothing(self, lab: Lab) -> None:
        """Empty batches of records, ids and requests are not an error and change nothing."""
        pair = lab.pair(records=dense_records(2))

        assert pair.store.upsert([]) == []
        pair.store.delete([])
        assert pair.store.get([]) == []
        assert pair.store.search([]) == []
        pair.assert_records_agree()

    def test_a_large_batch_arrives_whole(self, lab: Lab) -> None:
        """A batch larger than ``max_batch`` is split, and its last part is stored too."""
        count = min((lab.capabilities.max_batch or 500) + 17, 2_500)
        pair = lab.pair(records=dense_records(count))

        pair.assert_records_agree()
        ids = [f"r{row:03d}" for row in range(count)]
        assert [record.id for record in pair.store.get(ids)] == ids
        pair.delete(ids[1:])
        pair.assert_records_agree()

    @pytest.mark.parametrize("bad", list(_BAD))
    def test_one_bad_record_is_returned_and_the_others_go_in(self, lab: Lab, bad: str) -> None:
        """A rejected record is returned with its position, id and a permanent error; the other records are stored."""
        pair = lab.pair(lab.schema(filterable={"whole": FilterKind.INT}))
        good = dense_records(5)
        broken = _BAD[bad](Record("broken", {"dense": corpus.QUERIES[0]}))

        rejected = pair.store.upsert([good[0], good[1], good[1], broken, good[2]])

        assert [(item.position, item.id) for item in rejected] == [(3, broken.id)]
        assert isinstance(rejected[0].error, Permanent)
        assert pair.oracle.upsert(good[:3]) == []
        pair.store.refresh()
        pair.assert_records_agree()

    def test_a_record_without_a_needed_vector_is_refused(self, lab: Lab) -> None:
        """A record that lacks a required vector is rejected by name, and so is a zero vector of a cosine field."""
        pair = lab.pair(lab.schema({"dense": DenseField(corpus.DIMENSION, optional=False)}))
        good = dense_records(1)
        zero = Record("zero", {"dense": np.zeros(corpus.DIMENSION, np.float32)})

        rejected = pair.store.upsert([Record("none", {}), *good, zero])

        assert [(item.position, item.id) for item in rejected] == [(0, "none"), (2, "zero")]
        assert all(isinstance(item.error, Permanent) for item in rejected)
        pair.oracle.upsert(good)
        pair.store.refresh()
        pair.assert_records_agree()

    def test_records_may_lack_vectors(self, lab: Lab) -> None:
        """If vectors are optional, a record without some of them is stored and never matches the missing legs."""
        can = lab.capabilities
        lab.need(can.optional_vectors, "optional vectors")
        fields: dict[str, Any] = {"dense": DenseField(corpus.DIMENSION), "second": DenseField(corpus.DIMENSION)}
        if can.sparse:
            fields["sparse"] = SparseField()
        pair = lab.pair(lab.schema(fields))
        one, two, three = corpus.dense_vectors(3)
        empty = corpus.sparse_vectors(1)[0].top(0)
        pair.upsert(
            [
                Record("none", {}, {"n": 1}),
                Record("dense-only", {"dense": one}),
                Record("second-only", {"second": two}),
                Record("both", {"dense": three, "second": one}),
                Record("zero", {"dense": np.zeros(corpus.DIMENSION, np.float32), "second": two}),
                *([Record("sparse-empty", {"sparse": empty, "dense": two})] if can.sparse else []),
            ]
        )

        pair.assert_records_agree()
        pair.assert_search_agrees(
            pair.near(Near("dense", corpus.QUERIES[0])), pair.near(Near("second", corpus.QUERIES[0]))
        )
        assert "dense" not in pair.store.get(["zero"])[0].vectors

    def test_records_that_lack_vectors_are_refused_where_undeclared(self, lab: Lab) -> None:
        """A store without optional vectors rejects a record that lacks one by name, and never fills it in."""
        lab.need(not lab.capabilities.optional_vectors, "that it needs every vector")
        pair = lab.pair(lab.schema({"dense": DenseField(corpus.DIMENSION), "second": DenseField(3)}))
        (good,) = dense_records(1)
        whole = replace(good, vectors={**good.vectors, "second": np.ones(3, np.float32)})

        rejected = pair.store.upsert([good, replace(whole, id="whole")])

        assert [(item.position, item.id) for item in rejected] == [(0, good.id)]
        assert "'second'" in str(rejected[0].error)
        pair.oracle.upsert([replace(whole, id="whole")])
        pair.store.refresh()
        pair.assert_records_agree()

    def test_a_record_over_the_size_of_a_request_is_refused(self, lab: Lab) -> None:
        """If a store limits the size of a request, a larger record is rejected; the other records are stored."""
        limit = lab.capabilities.max_bytes
        if limit is None:
            pytest.skip("the store declares no limit")
        pair = lab.pair()
        first, huge, last = dense_records(3)

        rejected = pair.store.upsert([first, replace(huge, payload={"text": "x" * limit}), last])

        assert [(item.position, item.id) for item in rejected] == [(1, huge.id)]
        assert isinstance(rejected[0].error, Permanent)
        pair.oracle.upsert([first, last])
        pair.store.refresh()
        pair.assert_records_agree()

    def test_delete_removes_only_what_is_named(self, lab: Lab) -> None:
        """Deleted records disappear from ``get``, ``scan``, ``count`` and ``search``."""
        pair = lab.pair(records=dense_records(10))
        pair.delete(["r003", "r007", "r007"])

        assert [record.id for record in pair.store.get(["r002", "r003", "r004"])] == ["r002", "r004"]
        pair.assert_records_agree()
        pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[2])))

    def test_deleting_the_absent_is_silent(self, lab: Lab) -> None:
        """Missing ids raise no error, and the other ids are still deleted."""
        pair = lab.pair(records=dense_records(3))
        pair.delete(["nowhere", "r001", "r0", "R000"])

        pair.assert_records_agree()

    def test_get_answers_in_the_order_asked(self, lab: Lab) -> None:
        """Records are returned in the order of the ids, without missing ones."""
        store = lab.pair(records=dense_records(12)).store
        ids = ["r011", "r003", "nowhere", "r007", "r000", "r010", "r001"]

        got = store.get(ids)

        assert [record.id for record in got] == [name for name in ids if name != "nowhere"]
        assert [record.payload["row"] for record in got] == [11, 3, 7, 0, 10, 1]

    def test_get_answers_as_often_as_asked(self, lab: Lab) -> None:
        """An id that is requested twice is returned twice; many missing ids are not an error."""
        store = lab.pair(records=dense_records(3)).store
        ids = ["r001", "r000", "r001", *(f"absent-{number}" for number in range(1_200)), "r002"]

        assert [record.id for record in store.get(ids)] == ["r001", "r000", "r001", "r002"]

    def test_refresh_shows_every_earlier_write(self, lab: Lab) -> None:
        """After ``refresh`` reads see every upsert, replacement and deletion, also a deletion followed by an upsert."""
        pair = lab.pair(lab.schema(filterable={"turn": FilterKind.INT}))
        for turn in range(4):
            pair.upsert([replace(record, payload={"turn": turn}) for record in dense_records(6, start=turn)])
            pair.delete([f"r{turn:03d}"])
            pair.assert_records_agree()
            pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[turn]), limit=20))
        pair.upsert(dense_records(2))
        pair.assert_records_agree()

    def test_inputs_are_not_changed(self, lab: Lab) -> None:
        """Vectors, payloads and queries of the caller are not modified, and may be read-only."""
        payload = {"list": [3, 1, 2], "nested": {"b": 1, "a": [None]}}
        vectors = corpus.dense_vectors(3)
        before = vectors.copy(), copy.deepcopy(payload)
        pair = lab.pair()
        records = [Record(f"r{row}", {"dense": vector}, payload) for row, vector in enumerate(vectors)]
        query = corpus.QUERIES[0].copy()
        pair.store.upsert(records)
        pair.store.refresh()
        pair.store.search([pair.near(Near("dense", query))])

        assert np.array_equal(vectors, before[0])
        assert np.array_equal(query, corpus.QUERIES[0])
        assert same_json(payload, before[1])
        vectors.flags.writeable = False
        pair.upsert([Record("read-only", {"dense": vectors[0]}, payload)])

    def test_what_is_kept_is_a_copy(self, lab: Lab) -> None:
        """Modifying stored inputs or returned records does not change what is stored."""
        payload: dict[str, Any] = {"list": [1, 2], "nested": {"a": 1}}
        vector = corpus.dense_vectors(1)[0]
        wanted = [Record("a", {"dense": vector.copy()}, copy.deepcopy(payload))]
        pair = lab.pair()
        pair.store.upsert([Record("a", {"dense": vector}, payload)])
        pair.oracle.upsert(wanted)
        pair.store.refresh()

        vector[:] = 0
        payload["list"].append(3)
        payload["nested"]["a"] = 2
        for _ in range(2):
            pair.assert_records_agree()
            got = pair.store.get(["a"])[0]
            if isinstance(got.payload, dict):
                got.payload["list"].append(9)
                got.payload["more"] = True

    def test_text_is_replaced_too(self, lab: Lab) -> None:
        """A record stored again with another text, or without text, no longer matches the old text."""
        lab.need(lab.capabilities.text, "text")
        store = lab.new(lab.schema({"dense": DenseField(corpus.DIMENSION), "text": TextField()}))
        one, two, three = dense_records(3)
        store.upsert(
            [
                replace(one, payload={"text": "kettle"}),
                replace(two, payload={"text": "kettle"}),
                replace(three, payload={"text": "marble"}),
            ]
        )
        store.upsert([replace(one, payload={"text": "marble"}), replace(two, payload={})])
        store.refresh()

        kettle, marble = store.search([SearchRequest(Match("text", word)) for word in ("kettle", "marble")])
        assert [hit.id for hit in kettle] == []
        assert {hit.id for hit in marble} == {"r000", "r002"}
