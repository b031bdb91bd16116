"""What the guard makes of many records: equal ids, parts, and what a failure leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watched import JSON, UNIT, Watched, refusal

from st_connectors.errors import Throttled, Unavailable
from st_connectors.layers.guard import guarded
from st_connectors.layers.records import size_of
from st_connectors.store import (
    Near,
    Record,
    Rejected,
    SearchRequest,
)
from st_core.vectors import SparseVector


def test_one_bad_record_does_not_keep_the_others_out():
    """Positions are those of the caller's batch."""
    store = Watched()
    rejected = guarded(store).upsert([Record("a"), Record(""), Record("b"), Record("c", {"dot": [1]}), Record("d")])

    assert [(item.position, item.id) for item in rejected] == [(1, ""), (3, "c")]
    assert [record.id for record in store.calls[0]] == ["a", "b", "d"]


def test_the_last_of_equal_ids_wins():
    """Among those that are not refused, as if they had come one by one."""
    store = Watched()
    guarded(store).upsert(
        [Record("a", {}, {"n": 1}), Record("b"), Record("a", {}, {"n": 2}), Record("a", {}, {"n": float("nan")})]
    )

    assert [(record.id, record.payload) for record in store.calls[0]] == [("b", {}), ("a", {"n": 2})]


def test_rejections_by_the_store_have_the_callers_positions():
    """Behind refused, repeated and split records."""
    busy = Throttled("busy", store="fake", operation="upsert")
    store = Watched(max_batch=2, script=[[], [Rejected(1, "e", busy)]])

    rejected = guarded(store).upsert([Record(""), Record("a"), Record("b"), Record("a"), Record("c"), Record("e")])

    assert [[record.id for record in call] for call in store.calls] == [["b", "a"], ["c", "e"]]
    assert [(item.position, item.id) for item in rejected] == [(0, ""), (5, "e")]
    assert rejected[1].error is busy


@given(st.lists(st.integers(0, 300), max_size=20), st.none() | st.integers(1, 5), st.none() | st.integers(500, 900))
def test_batches_are_split_by_count_and_bytes(sizes, most, most_bytes):
    """In order, every record once, no part above either limit, and none that could have taken the next record."""
    store = Watched(max_batch=most, max_bytes=most_bytes)
    records = [Record(f"r{at}", {}, {"x": "y" * size}) for at, size in enumerate(sizes)]

    assert guarded(store).upsert(records) == []

    assert [record.id for call in store.calls for record in call] == [record.id for record in records]
    for call, following in zip(store.calls, [*store.calls[1:], []], strict=False):
        total = sum(map(size_of, call))
        assert len(call) <= (most or 99)
        assert total <= (most_bytes or 1e9)
        if following:
            assert len(call) == most or total + size_of(following[0]) > (most_bytes or 1e9)


def test_a_record_larger_than_a_request_is_refused():
    """With about its size and the limit."""
    message = refusal(Record("a", {"dot": UNIT}, {"x": "y" * 1000}), max_bytes=900)
    assert message == f"the record has about {64 + 1 + 3 * 24 + 1009} bytes, and a request has at most 900"


def test_the_estimate_of_bytes_is_not_below_json():
    """24 bytes a number and 36 a weight hold the longest that is written, so that a request is not above its limit."""
    rng = np.random.default_rng(3)
    vector = -(rng.normal(size=300) * 10.0 ** rng.integers(-30, 30, 300)).astype(np.float32)
    weights = SparseVector.from_arrays(np.arange(2**32 - 300, 2**32 - 1), rng.random(299).astype(np.float32))
    record = Record("a", {"d": vector, "s": weights}, {"text": "ünï"})

    dense, indices, values = (",".join(map(repr, each.tolist())) for each in (vector, weights.indices, weights.values))
    vectors = f'{{"d":[{dense}],"s":{{"indices":[{indices}],"values":[{values}]}}}}'
    body = f'{{"id":"a","vector":{vectors},"payload":{{"text":"ünï"}}}}'

    assert len(body) < size_of(record)


def test_a_failure_after_a_part_went_in_rejects_the_rest():
    """What was confirmed stays confirmed; the rest carries the error and is not tried."""
    down = Unavailable("down", store="fake", operation="upsert")
    store = Watched(max_batch=2, script=[[], down])

    rejected = guarded(store).upsert([Record(key) for key in "abcde"])

    assert [(item.position, item.id, item.error) for item in rejected] == [
        (2, "c", down),
        (3, "d", down),
        (4, "e", down),
    ]
    assert len(store.calls) == 2


def test_a_failure_of_the_first_part_is_raised():
    """Nothing went in."""
    store = Watched(max_batch=2, script=[Unavailable("down", store="fake", operation="upsert")])
    with pytest.raises(Unavailable):
        guarded(store).upsert([Record(key) for key in "abcde"])


def test_nothing_is_sent_for_nothing():
    """Empty batches, id lists and searches make no call."""
    store = Watched()
    wrapped = guarded(store)
    assert (wrapped.upsert([]), wrapped.delete([]), wrapped.get([]), wrapped.search([])) == ([], None, [], [])
    assert store.calls == []


def test_ids_are_asked_for_in_parts():
    """As many at a time as a batch may have, in order."""
    store = Watched(max_batch=2)
    wrapped = guarded(store)
    wrapped.upsert([Record(key) for key in "abc"])
    store.calls.clear()

    assert [record.id for record in wrapped.get(["c", "x", "a"])] == ["c", "a"]
    wrapped.delete(["a", "b", "c"])
    assert store.calls == [["c", "x"], ["a"], ["a", "b"], ["c"]]


def test_upsert_takes_records_only():
    """Anything else is the caller's mistake, told before anything is sent."""
    store = Watched()
    with pytest.raises(TypeError, match="the one at position 1 is dict"):
        guarded(store).upsert([Record("a"), {"id": "b"}])
    assert store.calls == []


@given(st.data())
def test_arguments_are_not_changed(data):
    """Neither vectors nor payload nor the list."""
    vector = np.array(data.draw(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)), np.float32)
    payload = {"x": data.draw(JSON)}
    kept, written = vector.copy(), json.dumps(payload)
    records = [Record("a", {"cosine": vector, "dot": vector}, payload)]
    store = guarded(Watched())

    store.upsert(records)
    store.search([SearchRequest(Near("cosine", vector))])

    assert (len(records), vector.tobytes(), json.dumps(payload)) == (1, kept.tobytes(), written)
