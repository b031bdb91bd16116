"""What is repeated, how long it waits, and what comes back when it does not help."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import stamina

from st_connectors.errors import Permanent, Refused, Temporary, Throttled, Unavailable
from st_connectors.layers.retry import NO_RETRY, RetryPolicy, retrying
from st_connectors.memory import MemoryStore
from st_connectors.schema import Schema, SparseField
from st_connectors.store import Near, Record, Rejected, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema("c", {"s": SparseField()})


@pytest.fixture(autouse=True)
def _no_waiting():
    """Stamina's test mode: as many attempts as asked for, no waits."""
    with stamina.set_testing(True, attempts=4):
        yield


@pytest.fixture
def waits():
    """The waits between attempts in seconds, as they would be without the test mode."""
    told = []
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: told.append(details.wait_for)])
    yield told
    stamina.instrumentation.set_on_retry_hooks(before)


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
        retrying(flaky).count()
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
    flaky = Flaky(request, [{"b": busy}] * 4)

    rejected = retrying(flaky).upsert([Record("a"), Record("b")])

    assert [(item.position, item.id, item.error) for item in rejected] == [(1, "b", busy)]


def test_an_outage_after_a_part_went_in_rejects_only_the_rest(request):
    """What the store confirmed is not reported lost, and what it refused is not reported temporary."""
    down = error()
    flaky = Flaky(request, [{"b": error(Throttled), "c": error(Refused)}, down, down, down])

    rejected = retrying(flaky).upsert([Record(key) for key in "abc"])

    assert [(item.position, item.id, type(item.error)) for item in rejected] == [
        (1, "b", Unavailable),
        (2, "c", Refused),
    ]


def test_an_outage_from_the_beginning_is_raised(request):
    """No record was answered for."""
    flaky = Flaky(request, [error()] * 4)
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


def test_waits_grow_within_the_policy(request, waits):
    """0.1, 0.2, 0.4 seconds without jitter, and never above the most."""
    with stamina.set_testing(False):
        policy = RetryPolicy(attempts=4, wait_initial=0.0001, wait_max=0.0003, wait_jitter=0.0)
        retrying(Flaky(request, [error(), error(), error()]), policy).count()

    assert waits == pytest.approx([0.0001, 0.0002, 0.0003])


def test_the_servers_wish_goes_before_the_formula(request, waits):
    """retry_after is waited for, be it shorter or longer."""
    with stamina.set_testing(False):
        policy = RetryPolicy(wait_initial=5.0, wait_jitter=0.0)
        retrying(Flaky(request, [error(Throttled, retry_after=0.001)]), policy).count()

    assert waits == [0.001]


@pytest.mark.parametrize("wish", [-3.0, float("nan")])
def test_a_wish_that_means_nothing_is_none(request, waits, wish):
    """A clock that went wrong does not end the repeating."""
    with stamina.set_testing(False):
        retrying(
            Flaky(request, [error(Throttled, retry_after=wish)]), RetryPolicy(wait_initial=0.001, wait_jitter=0.0)
        ).count()

    assert waits == pytest.approx([0.001])


def test_the_longest_wish_of_a_batch_is_waited_for(request, waits):
    """Each record's error may carry its own."""
    refused = {
        "a": error(Throttled, retry_after=0.001),
        "b": error(Throttled, retry_after=0.003),
        "c": error(Throttled),
    }
    with stamina.set_testing(False):
        retrying(Flaky(request, [refused])).upsert([Record(key) for key in "abc"])

    assert waits == [0.003]


def test_a_wish_beyond_the_timeout_is_not_waited_for(request):
    """The caller hears at once."""
    flaky = Flaky(request, [error(Throttled, retry_after=3600.0)])
    with pytest.raises(Throttled):
        retrying(flaky).count()
    assert len(flaky.calls) == 1


@pytest.mark.parametrize(("took", "calls"), [(44.0, 2), (45.0, 1)])
def test_the_first_call_counts_towards_the_timeout(request, monkeypatch, took, calls):
    """A call that took as long as all may take is not repeated."""
    clock = iter([100.0, 100.0 + took])
    store = Flaky(request, [error()])
    with stamina.set_testing(False), monkeypatch.context() as patched:
        patched.setattr("st_connectors.layers.retry.time", SimpleNamespace(monotonic=lambda: next(clock)))
        again = retrying(store, RetryPolicy(timeout=45.0, wait_initial=0.0, wait_jitter=0.0))
        if calls == 1:
            with pytest.raises(Unavailable):
                again.count()
        else:
            assert again.count() == 0
    assert len(store.calls) == calls


def test_one_attempt_means_none_is_repeated(request):
    """NO_RETRY gives every error to the caller."""
    with stamina.set_testing(False):
        flaky = Flaky(request, [error()])
        with pytest.raises(Temporary):
            retrying(flaky, NO_RETRY).count()
    assert len(flaky.calls) == 1


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
