"""Adapt the writing of an ingest to what the store can take, and wait for a store that is down."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from st_connectors.errors import Temporary

__all__ = ["Pace", "Patience", "Sending", "Waiting"]

SLOW = 10.0
"""Seconds: a request that takes longer counts as too large, long before the timeout of a client."""
SMALLEST_SHARE = 1 / 32
"""The smallest part of a batch that is sent at once."""
SHARE_STEP = 1 / 16
"""What the part of a batch grows by after a request that succeeded at once."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an ingest waits for a store that is down or throttles, in seconds.

    The waits come on top of the retries of each request. The ingest stops when the store was down for ``limit`` seconds
    without an acknowledged write in between; with 0 it stops at once. Wait n is uniform between 0 and
    ``min(wait_max, wait_initial * 2 ** (n - 1))`` (exponential with full jitter); what the server requests by
    ``Retry-After`` takes precedence.
    """

    limit: float = 300.0
    wait_initial: float = 1.0
    wait_max: float = 30.0

    def __post_init__(self) -> None:
        if not all(each >= 0 for each in (self.limit, self.wait_initial, self.wait_max)):
            raise ValueError("a patience has no wait and no limit below 0 seconds")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A store for which an ingest waits: the error, the next wait, and since when it waits, in seconds."""

    error: Temporary
    wait: float
    since: float
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class Sending:
    """A request that may be sent: ``share`` is the part of a batch that it may contain."""

    share: float
    is_probe: bool
    began: float


class Pace:
    """The pace of the requests of one ingest. Safe for use from several threads.

    The number of simultaneous requests starts at ``writers``. Each throttled, failed or slow request halves it, and at
    a number of 1 the part of a batch that is sent at once. Each request that succeeds at once raises them again, step
    by step (additive increase, multiplicative decrease). While the store is down, one request at a time probes whether
    it is back, and all others wait.
    """

    def __init__(self, writers: int, patience: Patience, on_wait: Callable[[Waiting], None] | None = None) -> None:
        """Store the limits; ``on_wait`` is called before each wait for the store."""
        self._writers = writers
        self._patience = patience
        self._on_wait = on_wait
        self._changed = threading.Condition()
        self._allowed = float(writers)
        self._share = 1.0
        self._active = 0
        self._is_stopped = False
        self._down_since: float | None = None
        self._failures = 0
        self._next_probe = 0.0
        self._is_probing = False

    @property
    def allowed(self) -> int:
        """The number of requests that are sent at the same time now."""
        return int(self._allowed)

    @property
    def share(self) -> float:
        """The part of a batch that is sent at once now."""
        return self._share

    def begin(self) -> Sending | None:
        """Wait until a request may be sent; return None if the pace was stopped."""
        with self._changed:
            while not self._is_stopped:
                if self._down_since is None and self._active < self.allowed:
                    return self._send(is_probe=False)
                if self._down_since is not None and not self._is_probing:
                    left = self._next_probe - time.monotonic()
                    if left <= 0:
                        self._is_probing = True
                        return self._send(is_probe=True)
                    self._changed.wait(left)
                else:
                    self._changed.wait()
            return None

    def _send(self, *, is_probe: bool) -> Sending:
        self._active += 1
        return Sending(self._share, is_probe, time.monotonic())

    def succeed(self, sending: Sending, *, is_smooth: bool) -> None:
        """Count a request that was acknowledged; ``is_smooth`` states whether without a retry."""
        with self._changed:
            self._end(sending)
            self._down_since, self._failures = None, 0
            if is_smooth and time.monotonic() - sending.began < SLOW:
                self._speed_up()
            else:
                self._slow_down()

    def fail(self, sending: Sending, error: Temporary, *, has_progressed: bool = False) -> None:
        """Count a request that failed temporarily, and let the next one wait; raise ``error`` if that takes too long.

        ``has_progressed`` states whether the store acknowledged a part of the request.
        """
        with self._changed:
            self._end(sending)
            self._slow_down()
            if self._down_since is not None and not sending.is_probe and not has_progressed:
                return  # sent before the store was known to be down; the next probe decides
            if self._down_since is None or has_progressed:
                self._down_since, self._failures = sending.began, 0
            if has_progressed:
                self._down_since = time.monotonic()
            self._failures += 1
            since, wait = time.monotonic() - self._down_since, self._wait(error)
            if since + wait > self._patience.limit or not self._patience.limit:
                raise error
            self._next_probe = time.monotonic() + wait
        if self._on_wait is not None:
            self._on_wait(Waiting(error, wait, since, self._patience.limit))

    def abandon(self, sending: Sending) -> None:
        """Count a request that failed for good, which says nothing about the pace."""
        with self._changed:
            self._end(sending)

    def _wait(self, error: Temporary) -> float:
        requested = error.retry_after
        if requested is not None and requested >= 0.0:
            return requested
        highest = min(self._patience.wait_max, self._patience.wait_initial * 2.0 ** min(self._failures - 1, 32))
        return random.uniform(0.0, highest)  # noqa: S311  # jitter, not a secret

    def _end(self, sending: Sending) -> None:
        self._active -= 1
        if sending.is_probe:
            self._is_probing = False
        self._changed.notify_all()

    def _slow_down(self) -> None:
        if self._allowed > 1:
            self._allowed = max(1.0, self._allowed / 2)
        else:
            self._share = max(SMALLEST_SHARE, self._share / 2)

    def _speed_up(self) -> None:
        if self._share < 1:
            self._share = min(1.0, self._share + SHARE_STEP)
        else:
            self._allowed = min(float(self._writers), self._allowed + 1 / self._allowed)

    def stop(self) -> None:
        """End all waits; no further request begins."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
