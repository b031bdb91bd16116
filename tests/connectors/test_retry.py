"""What is repeated, how long it waits, and what comes back when it does not help."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from st_connectors.errors import Permanent, Refused, Temporary, Throttled, Unavailable
from st_connectors.layers import retry
from st_connectors.layers.fusing import fusing
from st_connectors.layers.guard import guarded
from st_connectors.layers.isolate import isolating
from st_connectors.layers.retry import NO_RETRY, RetryPolicy, retrying, watching_retries
from st_connectors.layers.speculate import speculating
from st_connectors.memory import MemoryStore
from st_connectors.schema import Schema, SparseField
from st_connectors.store import Near, Record, Rejected, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema("c", {"s": SparseField()})


class Clock:
    """The time of the retry layer: sleeping moves it on, and is recorded."""

    def __init__(self):
        self.now, self.waits = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.waits.append(seconds)


class Longest:
    """A generator that returns the upper bound."""

    def uniform(self, low, high):
        return high


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """No test sleeps."""
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


@pytest.fixture
def longest(monkeypatch):
    """Each wait is the longest possible."""
    monkeypatch.setattr(retry, "_RANDOM", Longest())


def error(kind=Unavailable, **options):
    return kind("down", store="fake", operation="upsert", **options)


class Flaky(MemoryStore):
    """A store whose calls raise what ``script`` says, one entry a call.

    None lets the call through, a dict rejects those ids.
    """

    def __init__(self, request, script=()):
        super().__init__(request.node.nodeid, SCHEMA)
        super().create()
        self.script = list(script)
        self.calls = []

    def step(self, name, *detail):
        self.calls.append((name, *detail))
        planned = self.script.pop(0) if self.script else None
        if isinstance(planned, Exception):
            raise planned
        return planned or {}

    def create(self):
        self.step("create")
        super().create()

    def drop(self):
        self.step("drop")
        super().drop()

    def upsert(self, records):
        refused = self.step("upsert", [record.id for record in records])
        super().upsert([record for record in records if record.id not in refused])
        return [
            Rejected(at, record.id, refused[record.id]) for at, record in enumerate(records) if record.id in refused
        ]

    def delete(self, ids):
        self.step("delete")
        super().delete(ids)

    def get(self, ids, **options):
        self.step("get")
        return super().get(ids, **options)

    def search(self, requests):
        self.step("search")
        return super().search(requests)

    def count(self, where=None):
        self.step("count")
        return super().count(where)

    def refresh(self):
        self.step("refresh")

    def scan(self, **options):
        planned = self.script.pop(0) if self.script else None
        self.calls.append(("scan",))
        for at, record in enumerate(super().scan(**options)):
            if planned and planned[0] == at:
                raise planned[1]
            yield record


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.create(),
        lambda store: store.drop(),
        lambda store: store.upsert([Record("b")]),
        lambda store: store.delete(["a"]),
        lambda store: store.get(["a"]),
        lambda store: store.search([SearchRequest(Near("s", SparseVector.from_mapping({1: 1.0})))]),
        lambda store: store.count(),
        lambda store: store.refresh(),
    ],
)
def test_every_call_is_repeated_until_it_succeeds(request, call):
    """Two temporary failures, then the answer."""
    flaky = Flaky(request, [error(), error(Throttled)])

    call(retrying(flaky))

    names = [name for name, *_ in flaky.calls]
    assert names == [names[0]] * 3


@pytest.mark.parametrize("kind", [Permanent, Refused])
def test_permanent_errors_are_tried_once(request, kind):
    """The same request would fail again."""
    flaky = Flaky(request, [error(kind)])
    with pytest.raises(kind):
        retrying(flaky).count()
    assert len(flaky.calls) == 1


def test_other_exceptions_are_tried_once(request):
    """A bug is not repeated."""
    flaky = Flaky(request, [KeyError("bug")])
    with pytest.raises(KeyError):
        retrying(flaky).count()
    assert len(flaky.calls) == 1


def test_the_last_error_is_raised_when_attempts_run_out(request):
    """With its class and its words."""
    last = error(Throttled)
    flaky = Flaky(request, [error(), error(), error(), last])
    with pytest.raises(Throttled) as caught:
        retrying(flaky, RetryPolicy(attempts=4)).count()
    assert caught.value is last
    assert len(flaky.calls) == 4


def test_only_records_rejected_for_now_go_again(request):
    """Refused ones stay refused, and positions are those of the caller's batch."""
    flaky = Flaky(
        request, [{"b": error(Throttled), "c": error(Refused), "d": error(Throttled)}, {"d": error(Throttled)}]
    )

    rejected = retrying(flaky).upsert([Record(key) for key in "abcde"])

    assert [(item.position, item.id, type(item.error)) for item in rejected] == [(2, "c", Refused)]
    assert flaky.calls == [("upsert", list("abcde")), ("upsert", ["b", "d"]), ("upsert", ["d"])]
    assert flaky.count() == 4


def test_records_still_rejected_at_the_end_are_returned(request):
    """With their own temporary errors, so that the caller can keep them for later."""
    busy = error(Throttled)
    flaky = Flaky(request, [{"b": busy}] * 5)

    rejected = retrying(flaky).upsert([Record("a"), Record("b")])

    assert [(item.position, item.id, item.error) for item in rejected] == [(1, "b", busy)]


def test_an_outage_after_a_part_went_in_rejects_only_the_rest(request):
    """What the store confirmed is not reported lost, and what it refused is not reported temporary."""
    down = error()
    flaky = Flaky(request, [{"b": error(Throttled), "c": error(Refused)}, *[down] * 4])

    rejected = retrying(flaky).upsert([Record(key) for key in "abc"])

    assert [(item.position, item.id, type(item.error)) for item in rejected] == [
        (1, "b", Unavailable),
        (2, "c", Refused),
    ]


def test_an_outage_from_the_beginning_is_raised(request):
    """No record was answered for."""
    flaky = Flaky(request, [error()] * 5)
    with pytest.raises(Unavailable):
        retrying(flaky).upsert([Record("a")])


def test_scan_begins_again_until_its_first_record(request):
    """A failure before the first record is invisible."""
    flaky = Flaky(request, [(0, error()), (0, error())])
    MemoryStore.upsert(flaky, [Record(key) for key in "abc"])

    assert [record.id for record in retrying(flaky).scan()] == ["a", "b", "c"]
    assert len(flaky.calls) == 3


def test_scan_fails_after_its_first_record(request):
    """Beginning again would give records twice, for a scan's order is not promised."""
    flaky = Flaky(request, [(1, error())])
    MemoryStore.upsert(flaky, [Record(key) for key in "abc"])
    scan = retrying(flaky).scan()

    assert next(scan).id == "a"
    with pytest.raises(Unavailable):
        next(scan)


def test_an_empty_scan_ends(request):
    """No record is not a failure."""
    assert list(retrying(Flaky(request)).scan()) == []


@pytest.mark.usefixtures("longest")
def test_the_longest_waits_double_up_to_the_maximum(request, clock):
    """0.1, 0.2, 0.4 seconds, and never above ``wait_max``."""
    policy = RetryPolicy(attempts=5, wait_initial=0.1, wait_max=0.5)
    retrying(Flaky(request, [error()] * 4), policy).count()

    assert clock.waits == pytest.approx([0.1, 0.2, 0.4, 0.5])


SECONDS = st.floats(0.0, 60.0)
FAILURES = st.lists(st.tuples(SECONDS, st.none() | SECONDS), min_size=1, max_size=12)
"""How long each failed call takes, and the ``retry_after`` of its error."""
POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 12),
    timeout=st.floats(0.1, 120.0),
    wait_initial=st.floats(0.0, 10.0),
    wait_max=st.floats(0.0, 30.0),
    wait_jitter=st.floats(0.0, 5.0),
)


class Slow(MemoryStore):
    """A store whose calls take time and fail, until all ``failures`` are over."""

    def __init__(self, failures, clock):
        super().__init__("retry-slow", SCHEMA)
        self.failures, self.clock = list(failures), clock

    def refresh(self):
        if self.failures:
            took, wish = self.failures.pop(0)
            self.clock.now += took
            raise Throttled("busy", store="fake", operation="refresh", retry_after=wish)


def refresh(policy, failures, generator):
    """Return the reported waits with their wishes, the clock, and whether the call succeeded."""
    clock, seen = Clock(), []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retry, "time", clock)
        patched.setattr(retry, "_RANDOM", generator)
        with watching_retries(lambda error, wait: seen.append((error.retry_after, wait))):
            try:
                retrying(Slow(failures, clock), policy).refresh()
            except Throttled:
                return seen, clock, False
    return seen, clock, True


@given(POLICIES, FAILURES, st.randoms(use_true_random=True))
def test_every_wait_is_within_its_bounds_and_ends_before_the_timeout(policy, failures, generator):
    """By the formula without a wish of the server, and at least the wish with one; all waits are reported."""
    seen, clock, succeeded = refresh(policy, failures, generator)

    assert [wait for _, wait in seen] == clock.waits
    assert len(clock.waits) < policy.attempts
    assert succeeded == (len(clock.waits) == len(failures))
    for number, (wish, wait) in enumerate(seen):
        if wish is None:
            assert 0.0 <= wait <= min(policy.wait_max, policy.wait_initial * 2**number)
        else:
            assert wish <= wait <= wish + policy.wait_jitter
    if seen:
        calls = sum(took for took, _ in failures[: len(seen)])
        assert calls + sum(clock.waits) <= policy.timeout + 1e-6


@given(POLICIES, FAILURES)
def test_a_call_is_given_up_only_for_attempts_or_time(policy, failures):
    """With the longest waits it is known which failures are retried."""
    elapsed, retries = 0.0, 0
    for number, (took, wish) in enumerate(failures):
        wait = min(policy.wait_max, policy.wait_initial * 2**number) if wish is None else wish
        elapsed += took + wait
        assume(abs(elapsed - policy.timeout) > 1e-6)
        if number + 1 >= policy.attempts or elapsed > policy.timeout:
            break
        retries += 1

    seen, _, succeeded = refresh(replace(policy, wait_jitter=0.0), failures, Longest())

    assert len(seen) == retries
    assert succeeded == (retries == len(failures))


def test_waits_are_spread_over_the_whole_interval(request, clock):
    """Clients that failed together do not return together."""
    policy = RetryPolicy(attempts=201, timeout=1e6, wait_initial=1.0, wait_max=1.0)
    retrying(Flaky(request, [error()] * 200), policy).count()

    assert min(clock.waits) < 0.1
    assert max(clock.waits) > 0.9
    assert 0.4 < sum(clock.waits) / 200 < 0.6


def test_many_attempts_do_not_overflow(request, clock):
    """2 ** 2000 is no float."""
    policy = RetryPolicy(attempts=2001, timeout=1e9, wait_initial=0.1, wait_max=5.0)
    retrying(Flaky(request, [error()] * 2000), policy).count()

    assert max(clock.waits) <= 5.0


def test_the_servers_wish_goes_before_the_formula(request, clock):
    """retry_after is waited for, be it shorter or longer."""
    policy = RetryPolicy(wait_initial=5.0, wait_jitter=0.0)
    flaky = Flaky(request, [error(Throttled, retry_after=0.001), error(Throttled, retry_after=30.0)])
    retrying(flaky, policy).count()

    assert clock.waits == [0.001, 30.0]


@pytest.mark.usefixtures("longest")
def test_the_jitter_is_added_to_the_servers_wish(request, clock):
    """All clients get the same wish; half of the time that is left is for the call itself."""
    policy = RetryPolicy(timeout=10.0, wait_jitter=0.5)
    retrying(Flaky(request, [error(Throttled, retry_after=1.0), error(Throttled, retry_after=8.0)]), policy).count()

    assert clock.waits == [1.5, 8.25]


@pytest.mark.parametrize("wish", [-3.0, float("nan")])
def test_a_wish_that_means_nothing_is_none(request, clock, wish):
    """A clock that went wrong does not end the repeating."""
    retrying(Flaky(request, [error(Throttled, retry_after=wish)]), RetryPolicy(wait_initial=0.001)).count()

    (wait,) = clock.waits
    assert 0.0 <= wait <= 0.001


def test_the_longest_wish_of_a_batch_is_waited_for(request, clock):
    """Each record's error may carry its own."""
    refused = {
        "a": error(Throttled, retry_after=0.001),
        "b": error(Throttled, retry_after=0.003),
        "c": error(Throttled),
    }
    retrying(Flaky(request, [refused]), RetryPolicy(wait_jitter=0.0)).upsert([Record(key) for key in "abc"])

    assert clock.waits == [0.003]


def test_a_wish_beyond_the_timeout_is_not_waited_for(request, clock):
    """The caller hears at once."""
    flaky = Flaky(request, [error(Throttled, retry_after=3600.0)])
    with pytest.raises(Throttled):
        retrying(flaky).count()
    assert len(flaky.calls) == 1
    assert clock.waits == []


@pytest.mark.usefixtures("longest")
@pytest.mark.parametrize(("took", "calls"), [(43.0, 2), (44.0, 1), (45.0, 1), (50.0, 1)])
def test_the_first_call_counts_towards_the_timeout(request, clock, took, calls):
    """A wait that would not end before the timeout is not made."""

    class Slow(Flaky):
        def step(self, name, *detail):
            clock.now += took
            return super().step(name, *detail)

    store = Slow(request, [error()])
    again = retrying(store, RetryPolicy(timeout=45.0, wait_initial=1.0))
    if calls == 1:
        with pytest.raises(Unavailable):
            again.count()
    else:
        assert again.count() == 0
    assert len(store.calls) == calls


def test_one_attempt_means_none_is_repeated(request, clock):
    """NO_RETRY gives every error to the caller."""
    flaky = Flaky(request, [error()])
    with pytest.raises(Temporary):
        retrying(flaky, NO_RETRY).count()
    assert len(flaky.calls) == 1
    assert clock.waits == []


def layered(store):
    """Return a store with all layers."""
    return guarded(fusing(isolating(retrying(speculating(store)))))


@pytest.mark.parametrize("call", [lambda store: store.upsert([Record("b")]), lambda store: store.count()])
def test_retries_are_watched_through_all_layers(request, clock, call):
    """Each with its error, before the wait."""
    down, busy = error(), error(Throttled)
    seen = []
    store = layered(Flaky(request, [down, busy]))
    with watching_retries(lambda error, wait: seen.append((error, wait, len(clock.waits)))):
        call(store)

    assert seen == [(down, clock.waits[0], 0), (busy, clock.waits[1], 1)]


def test_retries_of_single_records_are_watched(request):
    """One for the batch, with the error that is waited for longest."""
    slow = error(Throttled, retry_after=2.0)
    seen = []
    with watching_retries(lambda error, _: seen.append(error)):
        layered(Flaky(request, [{"a": error(Throttled), "b": slow}])).upsert([Record("a"), Record("b")])

    assert seen == [slow]


def test_a_failure_that_is_not_retried_is_not_watched(request):
    """Neither a permanent error nor the last attempt."""
    seen = []
    with watching_retries(lambda error, _: seen.append(error)):
        with pytest.raises(Refused):
            layered(Flaky(request, [error(Refused)])).count()
        with pytest.raises(Unavailable):
            retrying(Flaky(request, [error()]), NO_RETRY).count()

    assert seen == []


def test_watchers_nest_and_end_with_their_block(request):
    """The innermost is called first; after its block it is not called any more."""
    seen = []
    with watching_retries(lambda *_: seen.append("outer")):
        with watching_retries(lambda *_: seen.append("inner")):
            retrying(Flaky(request, [error()])).count()
        retrying(Flaky(request, [error()])).count()
    retrying(Flaky(request, [error()])).count()

    assert seen == ["inner", "outer", "outer"]


def test_calls_of_other_threads_are_watched_in_a_copy_of_the_context_only(request):
    """Two threads do not see the retries of each other."""
    seen = []
    with watching_retries(lambda error, _: seen.append(error)):
        for run in (threading.Thread, lambda target: threading.Thread(target=copy_context().run, args=[target])):
            thread = run(target=retrying(Flaky(request, [error()])).count)
            thread.start()
            thread.join()

    assert len(seen) == 1


def test_an_error_of_a_watcher_ends_the_operation(request, clock):
    """For example because the program is to stop."""

    def stop(error, wait):
        raise KeyboardInterrupt

    flaky = Flaky(request, [error()])
    with pytest.raises(KeyboardInterrupt), watching_retries(stop):
        retrying(flaky).count()
    assert len(flaky.calls) == 1
    assert clock.waits == []


@pytest.mark.usefixtures("longest")
def test_each_retry_is_logged(request, caplog):
    """In one line, with the error and the wait."""
    with caplog.at_level(logging.WARNING, retry.__name__):
        retrying(Flaky(request, [error(), error()]), RetryPolicy(wait_initial=0.1)).count()

    assert caplog.messages == [
        "fake upsert: down; retry 1 of 4 in 0.10 s",
        "fake upsert: down; retry 2 of 4 in 0.20 s",
    ]


@pytest.mark.parametrize("options", [{"attempts": 0}, {"timeout": 0.0}, {"wait_initial": -1.0}])
def test_a_policy_that_means_nothing_is_refused(options):
    """At least one attempt, and no negative time."""
    with pytest.raises(ValueError):
        RetryPolicy(**options)


def test_results_pass_through(request):
    """The wrapper changes neither schema nor capabilities nor answers."""
    flaky = Flaky(request)
    store = retrying(flaky)
    store.upsert([Record("a", {"s": SparseVector.from_mapping({1: 2.0})}, {"n": 1})])

    assert (store.schema, store.capabilities) == (flaky.schema, flaky.capabilities)
    assert [
        (hit.id, hit.score) for hit in store.search([SearchRequest(Near("s", SparseVector.from_mapping({1: 1.0})))])[0]
    ] == [("a", 2.0)]
    assert store.get(["a"])[0].payload == {"n": 1}
    store.close()
