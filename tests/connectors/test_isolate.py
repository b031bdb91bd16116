"""One poisoned record does not cost its batch, nor many calls."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.errors import Permanent, Refused, Unavailable
from st_connectors.layers.isolate import isolating
from st_connectors.memory import MemoryStore
from st_connectors.schema import Schema, SparseField
from st_connectors.store import Capabilities, Record, Rejected

SCHEMA = Schema("c", {"s": SparseField()})


class AllOrNothing(MemoryStore):
    """Refuses a whole batch for one id in ``poisoned``, and is down from call number ``down_at`` on."""

    def __init__(self, poisoned=(), down_at=math.inf, partial=False, status=None):
        super().__init__(f"isolate-{id(self)}", SCHEMA)
        self.drop()
        self.create()
        self.poisoned, self.down_at, self.calls, self.status = set(poisoned), down_at, 0, status
        self._capabilities = Capabilities(sparse=True, partial_failure=partial)

    def upsert(self, records):
        self.calls += 1
        if self.calls >= self.down_at:
            raise Unavailable("down", store="fake", operation="upsert")
        bad = [record.id for record in records if record.id in self.poisoned]
        if bad:
            raise Refused(f"no {bad[0]}", store="fake", operation="upsert", status=self.status)
        return super().upsert(records)


def records(count):
    return [Record(f"r{at}") for at in range(count)]


CASES = st.integers(1, 40).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1))))


@pytest.mark.parametrize(("partial", "status"), [(False, None), (False, 413), (True, 413)])
@given(case=CASES)
def test_exactly_the_poisoned_records_are_rejected(case, partial, status):
    """With their positions in the batch, in order, and everything else is stored."""
    count, bad = case
    store = AllOrNothing({f"r{at}" for at in bad}, partial=partial, status=status)

    rejected = isolating(store).upsert(records(count))

    assert [(item.position, item.id) for item in rejected] == [(at, f"r{at}") for at in sorted(bad)]
    assert all(isinstance(item.error, Refused) and item.id in str(item.error) for item in rejected)
    assert {record.id for record in store.scan()} == {f"r{at}" for at in range(count) if at not in bad}


def test_one_poisoned_record_costs_two_calls_a_halving():
    """2 * log2(n) calls beside the first."""
    store = AllOrNothing({"r700"})
    isolating(store).upsert(records(1024))
    assert store.calls == 1 + 2 * 10


def test_rejections_of_a_half_have_the_positions_of_the_whole():
    """A store may also reject single records of the half that it takes."""

    class Both(AllOrNothing):
        def upsert(self, records):
            super().upsert(records)
            busy = Unavailable("busy", store="fake", operation="upsert")
            return [Rejected(at, record.id, busy) for at, record in enumerate(records) if record.id == "r6"]

    rejected = isolating(Both({"r1"})).upsert(records(8))

    assert [(item.position, item.id, type(item.error)) for item in rejected] == [
        (1, "r1", Refused),
        (6, "r6", Unavailable),
    ]


def test_a_clean_batch_is_one_call():
    """Nothing is cut while nothing is refused."""
    store = AllOrNothing()
    assert isolating(store).upsert(records(100)) == []
    assert store.calls == 1


@pytest.mark.parametrize("status", [None, 400])
def test_a_refused_request_to_a_store_that_answers_record_by_record_is_not_halved(status):
    """It concerns the complete request, unless it is too large."""
    store = AllOrNothing({"r1"}, partial=True, status=status)
    with pytest.raises(Refused, match="no r1"):
        isolating(store).upsert(records(4))
    assert store.calls == 1


def test_an_answer_record_by_record_is_returned_unchanged():
    """In one call."""

    class Partial(AllOrNothing):
        def upsert(self, records):
            super().upsert(records)
            return [Rejected(2, "r2", Refused("bad", store="fake", operation="upsert", status=400))]

    store = Partial(partial=True)
    ((position, record_id, error),) = [
        (item.position, item.id, item.error) for item in isolating(store).upsert(records(4))
    ]
    assert (position, record_id, str(error)) == (2, "r2", "fake upsert: bad")
    assert store.calls == 1


class Shared(AllOrNothing):
    """Stores up to ``room`` records of a batch, and rejects those with an even number in a larger one, by item."""

    def __init__(self, room):
        super().__init__(partial=True)
        self.room = room

    def upsert(self, records):
        error = Refused("no room", store="fake", operation="upsert", status=413)
        crowded = len(records) > self.room
        refused = [at for at, each in enumerate(records) if crowded and int(each.id[1:]) % 2 == 0]
        super().upsert([record for at, record in enumerate(records) if at not in refused])
        return [Rejected(at, records[at].id, error) for at in refused]


@given(st.integers(1, 40), st.integers(0, 9))
def test_records_that_are_too_large_together_are_sent_again_in_smaller_batches(count, room):
    """Each is stored, or was refused alone."""
    store = Shared(room)

    rejected = isolating(store).upsert(records(count))

    even = [at for at in range(count) if at % 2 == 0]
    assert [item.position for item in rejected] == ([] if room else even)
    assert {record.id for record in store.scan()} == {f"r{at}" for at in range(count) if room or at % 2}


def test_another_refusal_while_a_large_batch_is_halved_ends_it():
    """What is not written is rejected with it."""

    class Changing(AllOrNothing):
        def upsert(self, records):
            self.status = 413 if self.calls < 2 else 400
            return super().upsert(records)

    store = Changing({"r0", "r5"}, partial=True)
    rejected = isolating(store).upsert(records(8))

    assert [(item.position, item.error.status) for item in rejected] == [(at, 400) for at in range(8)]
    assert store.calls == 3


def test_other_errors_of_the_whole_batch_are_raised():
    """Halving helps only against a refusal."""
    store = AllOrNothing(down_at=1)
    with pytest.raises(Unavailable):
        isolating(store).upsert(records(8))
    assert store.calls == 1


def test_an_outage_while_halving_rejects_what_is_not_yet_in():
    """Each record is either stored or rejected, with the error that says whether to try again."""
    store = AllOrNothing({"r1"}, down_at=6)

    rejected = isolating(store).upsert(records(8))

    assert {record.id for record in store.scan()} == {"r0"}
    assert [(item.position, type(item.error)) for item in rejected] == [
        (1, Refused),
        *((at, Unavailable) for at in range(2, 8)),
    ]
    assert store.calls == 6


def test_permanent_errors_that_are_no_refusal_are_not_bisected():
    """A missing collection refuses every half as well."""
    store = AllOrNothing()
    store.drop()
    with pytest.raises(Permanent):
        isolating(store).upsert(records(4))
    assert store.calls == 1
