"""Jobs of many clients: computed together, each with its own result, and failures stay with their job."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from st_connectors.server.batching import Batcher, Job, QueueLimits, divide
from st_connectors.server.faults import Fault, FaultKind
from st_core.engine.options import CallOptions
from st_core.engine.prepared import Computed, Prepared
from st_core.text.tokens import Tokens


def prepared(*lengths, first=0):
    """Tokens of inputs, whose ids are numbers of the inputs."""
    return Prepared(
        Tokens([np.full(length, first + number, np.int32) for number, length in enumerate(lengths)]), CallOptions()
    )


class Model:
    """A model whose vectors are the ids of the inputs; it can block, and fail on some ids."""

    def __init__(self, poison=()):
        self.poison = set(poison)
        self.batches = []
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()

    def compute(self, requests):
        self.entered.set()
        assert self.free.wait(60)
        ids = [[int(row[0]) for row in each.tokens.ids] for each in requests]
        self.batches.append(ids)
        found = self.poison & {each for row in ids for each in row}
        if found:
            raise RuntimeError(f"poison {sorted(found)}")
        return [Computed(np.array(row), each) for row, each in zip(ids, requests, strict=True)]


def job(client, *lengths, first=0):
    """A job whose result is a list of the ids of its inputs."""
    return Job(
        client,
        lambda: prepared(*lengths, first=first),
        lambda done: np.concatenate([each.rows for each in done.computed]).tolist() if done.computed else [],
    )


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def batcher(pool):
    """Return a function that makes a batcher of a model."""
    made = []

    def make(model, **limits):
        made.append(Batcher("model", [model.compute], pool, QueueLimits(**limits)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [([], []), ([3], [[0]]), ([9, 1, 1], [[0], [1, 2]]), ([2, 3, 1], [[0, 1], [2]]), ([5, 5, 5], [[0], [1], [2]])],
)
def test_a_request_is_divided_by_tokens(lengths, parts):
    """Parts have up to five tokens; a longer input is alone."""
    assert divide(lengths, 5) == parts


def held(model, batcher):
    """Occupy the lane with a job, so that the next ones gather in the queue."""
    model.free.clear()
    first = batcher.submit(job("holder", 100, first=90))
    assert model.entered.wait(60)
    return first


def queued(batcher, tokens):
    """Wait until so many tokens are in the queue."""
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: batcher.tokens >= tokens, 60)


def test_jobs_that_wait_are_computed_together(batcher):
    """Each gets its own result, in the order of its inputs."""
    model = Model()
    queue = batcher(model, batch_tokens=100, short_tokens=0)
    first = held(model, queue)
    jobs = [queue.submit(job(f"client {at}", 2, 3, first=10 * at)) for at in range(4)]
    queued(queue, 20)
    model.free.set()

    assert [each.future.result(60) for each in jobs] == [[0, 1], [10, 11], [20, 21], [30, 31]]
    assert first.future.result(60) == [90]
    assert sorted(map(len, model.batches)) == [1, 4]


def test_a_long_job_is_computed_in_parts(batcher):
    """Its result is in order."""
    model = Model()
    queue = batcher(model, batch_tokens=10)

    assert queue.submit(job("a", *[4] * 9)).future.result(60) == list(range(9))
    assert all(sum(map(len, batch)) <= 2 for batch in model.batches)


def test_a_job_without_inputs_is_not_computed(batcher):
    """Its result is empty."""
    model = Model()

    assert batcher(model).submit(job("a")).future.result(60) == []
    assert model.batches == []


def test_a_failed_batch_fails_only_the_request_at_fault(batcher):
    """The others of the batch have their results."""
    model = Model(poison=[21])
    queue = batcher(model, batch_tokens=100, short_tokens=0)
    held(model, queue)
    jobs = [queue.submit(job(f"client {at}", 2, 3, first=10 * at)) for at in range(5)]
    queued(queue, 25)
    model.free.set()

    with pytest.raises(RuntimeError, match="poison"):
        jobs[2].future.result(60)
    assert [jobs[at].future.result(60) for at in (0, 1, 3, 4)] == [[0, 1], [10, 11], [30, 31], [40, 41]]


def test_an_error_of_preparing_or_finishing_is_that_of_the_job(batcher):
    """The lane goes on."""
    queue = batcher(Model())

    def fail(*_):
        raise Fault(FaultKind.INVALID, "wrong")

    with pytest.raises(Fault, match="wrong"):
        queue.submit(Job("a", fail, list)).future.result(60)
    with pytest.raises(Fault, match="wrong"):
        queue.submit(Job("a", lambda: prepared(1), fail)).future.result(60)
    assert queue.submit(job("a", 1)).future.result(60) == [0]


def test_a_job_whose_client_left_is_not_computed(batcher):
    """It leaves the queue at once."""
    model = Model()
    queue = batcher(model, batch_tokens=100, short_tokens=0)
    held(model, queue)
    gone, stays = queue.submit(job("gone", 5, first=40)), queue.submit(job("stays", 6, first=50))
    queued(queue, 11)
    gone.cancel()

    assert queue.tokens == 6
    model.free.set()
    assert stays.future.result(60) == [50]
    assert not any(40 in row for batch in model.batches for row in batch)


def test_a_full_queue_refuses_with_the_time_to_wait(batcher):
    """By the number of jobs, and by tokens."""
    model = Model()
    queue = batcher(model, jobs=2, short_tokens=0)
    held(model, queue)
    queue.submit(job("a", 1))
    with pytest.raises(Fault, match="queue is full") as refused:
        queue.submit(job("a", 1))
    assert refused.value.kind is FaultKind.OVERLOADED
    assert refused.value.retry_after >= 1
    model.free.set()

    other = Model()
    queue = batcher(other, tokens=10, short_tokens=0)
    held(other, queue)
    queue.submit(job("a", 20))
    queued(queue, 20)
    with pytest.raises(Fault, match="queue is full"):
        queue.submit(job("a", 1))
    other.free.set()


def test_a_short_job_is_computed_beside_a_long_batch(batcher):
    """It has its result while the lane is still computing."""

    class Held(Model):
        def compute(self, requests):
            is_short = sum(int(each.lengths.sum()) for each in requests) <= 10
            if is_short:
                return [Computed(each.tokens.ids[0][:1], each) for each in requests]
            return super().compute(requests)

    model = Held()
    queue = batcher(model, short_tokens=10)
    first = held(model, queue)
    short = queue.submit(job("b", 3, first=7))

    assert short.future.result(60) == [7]
    assert not first.future.done()
    model.free.set()
    assert first.future.result(60) == [90]


def test_out_of_memory_halves_the_batches(batcher):
    """Jobs that fit alone have their results, and later batches are smaller."""

    class Small(Model):
        def compute(self, requests):
            tokens = sum(int(each.lengths.sum()) for each in requests)
            if tokens > 20:
                raise MemoryError
            return super().compute(requests)

    model = Small()
    queue = batcher(model, batch_tokens=60, short_tokens=0)
    jobs = [queue.submit(job(f"client {at}", 15, first=10 * at)) for at in range(8)]

    assert [each.future.result(60) for each in jobs] == [[10 * at] for at in range(8)]


def test_out_of_memory_divides_a_request(batcher):
    """A request that does not fit at once is computed in halves, and its result is in order."""

    class Small(Model):
        def compute(self, requests):
            if sum(int(each.lengths.sum()) for each in requests) > 10:
                raise MemoryError
            return super().compute(requests)

    queue = batcher(Small(), batch_tokens=60, short_tokens=0)

    assert queue.submit(job("a", *[3] * 14)).future.result(60) == list(range(14))
    with pytest.raises(MemoryError):
        queue.submit(job("a", 3, 20, 3)).future.result(60)


def test_devices_share_the_queue(pool):
    """While one computes, the other takes what waits."""
    first, second = Model(), Model()
    batcher = Batcher("model", [first.compute, second.compute], pool, QueueLimits(batch_tokens=10, short_tokens=0))
    first.free.clear()
    second.free.clear()
    jobs = [batcher.submit(job(f"client {at}", 10, first=at)) for at in range(2)]
    both = first.entered.wait(60) and second.entered.wait(60)
    first.free.set()
    second.free.set()

    assert both
    assert [each.future.result(60) for each in jobs] == [[0], [1]]
    batcher.close()


def test_short_requests_alone_are_not_divided(batcher):
    """The lane for short pieces is idle while the other computes short ones, so that batches fill."""
    model = Model()
    queue = batcher(model, short_tokens=10)
    model.free.clear()
    first = queue.submit(job("a", 3, first=1))
    assert model.entered.wait(60)
    jobs = [queue.submit(job(f"client {at}", 3, first=at)) for at in range(5)]
    queued(queue, 15)
    model.free.set()

    assert [each.future.result(60) for each in (first, *jobs)] == [[1], *[[at] for at in range(5)]]
    assert sorted(map(len, model.batches)) == [1, 5]


def test_draining_waits_for_what_was_accepted(batcher):
    """New jobs are refused from the beginning."""
    model = Model()
    queue = batcher(model, short_tokens=0)
    first = held(model, queue)
    assert not queue.drain(0.0)

    with pytest.raises(Fault, match="stopping"):
        queue.submit(job("a", 1))
    model.free.set()
    assert queue.drain(60)
    assert first.future.result(0) == [90]


def test_many_threads(batcher):
    """Each of 400 jobs has its own result."""
    queue = batcher(Model(), batch_tokens=50)
    with ThreadPoolExecutor(8) as clients:
        found = list(
            clients.map(
                lambda at: queue.submit(job(f"client {at % 5}", *[at % 7 + 1] * 3, first=at)).future.result(60),
                range(400),
            )
        )

    assert found == [[at, at + 1, at + 2] for at in range(400)]
