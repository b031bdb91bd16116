"""The pace falls with trouble and rises again, and a store that is down is probed by one request at a time."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from st_connectors.errors import Throttled, Unavailable
from st_connectors.ingest import pace as module
from st_connectors.ingest.pace import Pace, Patience


class Clock:
    """A clock that moves by itself only when a thread waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Replace the clock of the module alone: a server of other tests in this process would wait for hours by it."""
    clock = Clock()

    class Waiting(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            clock.now += timeout or 0
            return True

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(module, "threading", SimpleNamespace(Condition=Waiting))
    return clock


def down(retry_after=None) -> Unavailable:
    return Unavailable("down", store="s", operation="upsert", retry_after=retry_after)


def test_trouble_halves_and_success_adds(clock):
    """From 8 writers to 4, 2, 1, then to smaller parts; and back, first the parts and then the writers."""
    pace = Pace(8, Patience())
    seen = []
    for _ in range(7):
        pace.succeed(pace.begin(), is_smooth=False)
        seen.append((pace.allowed, pace.share))
    assert seen == [(4, 1), (2, 1), (1, 1), (1, 0.5), (1, 0.25), (1, 0.125), (1, 0.0625)]

    steps = 0
    while pace.allowed < 8:
        pace.succeed(pace.begin(), is_smooth=True)
        steps += 1
    assert pace.share == 1
    assert 15 + 7 < steps < 60  # 15 parts of a sixteenth, then about n requests from n to n + 1 writers


def test_a_slow_request_is_trouble(clock):
    """Long before the timeout of a client."""
    pace = Pace(2, Patience())
    sending = pace.begin()
    clock.now += 11

    pace.succeed(sending, is_smooth=True)

    assert pace.allowed == 1


def test_a_store_that_is_down_is_probed_after_waits_until_the_patience_is_over(clock):
    """Each wait is at most the exponential one, and the error of the store is raised when the limit is reached."""
    waits = []
    pace = Pace(1, Patience(limit=60, wait_initial=1, wait_max=16), waits.append)

    def fail_for_ever() -> None:
        while True:
            pace.fail(pace.begin(), down())

    with pytest.raises(Unavailable, match="down"):
        fail_for_ever()

    assert len(waits) >= 5
    for number, waiting in enumerate(waits):
        assert 0 <= waiting.wait <= min(16, 2**number)
    assert waits[-1].since + waits[-1].wait <= 60
    assert clock.now <= 160


def test_a_requested_wait_takes_precedence(clock):
    """The probe is sent after it, and not before."""
    pace = Pace(1, Patience(limit=60))
    pace.fail(pace.begin(), Throttled("busy", store="s", operation="upsert", retry_after=7.0))
    began = clock.now

    assert pace.begin().is_probe
    assert clock.now - began == pytest.approx(7.0)


def test_an_acknowledged_write_restarts_the_patience(clock):
    """Being down for 50 of 60 seconds twice is not being down for 100."""
    pace = Pace(1, Patience(limit=60, wait_initial=0))
    for _ in range(3):
        sending = pace.begin()
        clock.now += 50
        pace.fail(sending, down())
        pace.succeed(pace.begin(), is_smooth=True)


def test_without_patience_the_first_error_is_raised(clock):
    """As for a single request."""
    pace = Pace(1, Patience(limit=0))
    with pytest.raises(Unavailable):
        pace.fail(pace.begin(), down())


def test_only_one_request_probes():
    """The other writers wait until the store is back."""
    pace = Pace(4, Patience(limit=60, wait_initial=0))
    first, second = pace.begin(), pace.begin()
    pace.fail(first, down())
    probe = pace.begin()
    assert probe.is_probe
    others = [threading.Thread(target=pace.begin) for _ in range(2)]
    for thread in others:
        thread.start()
    pace.fail(second, down())  # sent before: says nothing new, and does not start another probe
    assert all(thread.is_alive() for thread in others)

    pace.succeed(probe, is_smooth=True)
    pace.stop()
    for thread in others:
        thread.join(30)
    assert not any(thread.is_alive() for thread in others)


@pytest.mark.parametrize("values", [(-1, 1, 1), (1, -1, 1), (1, 1, float("nan"))])
def test_negative_waits_are_refused(values):
    """Also what is no number."""
    with pytest.raises(ValueError, match="below 0 seconds"):
        Patience(*values)
