"""Retry operations that fail with a ``Temporary`` error, after random waits or those that the server requests.

The wait before retry n is random between 0 and ``min(wait_max, wait_initial * 2 ** (n - 1))`` seconds: exponential with
full jitter, so that clients that a store rejected together do not return together.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from st_connectors.errors import Temporary
from st_connectors.filters import Filter
from st_connectors.layers.passing import Passing
from st_connectors.schema import Schema
from st_connectors.store import Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["NO_RETRY", "RetryPolicy", "RetryWatcher", "retried", "retrying", "watching_retries"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_RANDOM = random.SystemRandom()
"""Not the generator of the program, because processes with the same seed would wait equally long."""
_MAX_DOUBLINGS = 60
"""More would overflow a float for policies with many attempts."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to retry: at most ``attempts`` calls, the last of which begins within ``timeout`` seconds.

    The wait before retry n is random, uniformly distributed between 0 and
    ``min(wait_max, wait_initial * 2 ** (n - 1))`` seconds. A ``retry_after`` of the server takes precedence: the wait
    is that time, plus a random time up to ``wait_jitter``, because the server requests the same of all its clients.
    A wait that would end after ``timeout`` is not made: the call fails at once.
    """

    attempts: int = 5
    timeout: float = 45.0
    wait_initial: float = 0.3
    wait_max: float = 5.0
    wait_jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if self.timeout <= 0 or min(self.wait_initial, self.wait_max, self.wait_jitter) < 0:
            raise ValueError("timeout must be above 0 and no wait below 0 seconds")


NO_RETRY = RetryPolicy(attempts=1)
"""The policy that never retries."""

RetryWatcher: TypeAlias = Callable[[Temporary, float], None]
"""A function that is called before each wait, with the error of the call and the wait in seconds."""

_WATCHERS: ContextVar[tuple[RetryWatcher, ...]] = ContextVar("watchers", default=())


@contextmanager
def watching_retries(watcher: RetryWatcher) -> Iterator[None]:
    """Call ``watcher`` before each wait of the operations that the block calls, whatever the store.

    If records of a batch are rejected with temporary errors, the error is the one with the longest wait. Calls of other
    threads are not watched, except in a copy of this context. In nested blocks all watchers are called, the innermost
    first. An error that a watcher raises ends the operation.
    """
    token = _WATCHERS.set((watcher, *_WATCHERS.get()))
    try:
        yield
    finally:
        _WATCHERS.reset(token)


def retrying(store: Store, policy: RetryPolicy | None = None) -> Store:
    """Return a store that retries the operations of ``store``, which may all be repeated safely.

    Each retry is logged as a warning, and reported to the watchers of ``watching_retries``.
    """
    return _Retrying(store, policy or RetryPolicy())


def retried(call: Callable[[], T], policy: RetryPolicy | None = None) -> T:
    """Return the result of ``call``, which is retried according to a policy; ``call`` may be repeated safely."""
    attempts = _Attempts(policy or RetryPolicy())
    while True:
        try:
            return call()
        except Temporary as error:
            if not attempts.wait(error):
                raise


class _Retrying(Passing):
    def __init__(self, store: Store, policy: RetryPolicy) -> None:
        super().__init__(store)
        self._policy = policy

    def create(self) -> None:
        self._retry(self.store.create)

    def drop(self) -> None:
        self._retry(self.store.drop)

    def alter(self, schema: Schema) -> None:
        self._retry(lambda: self.store.alter(schema))

    def stored_schema(self, collection: str) -> Schema | None:
        return self._retry(lambda: super(_Retrying, self).stored_schema(collection))

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Retry the complete call, or only the records that were rejected with a temporary error.

        After a call that succeeded for some records, a temporary error of a retry is not raised; its records are
        returned as rejected.
        """
        attempts = _Attempts(self._policy)
        pending: Sequence[int] = range(len(records))
        final: list[Rejected] = []
        answered = False
        while True:
            try:
                answer = _at_positions(self.store.upsert([records[at] for at in pending]), pending)
                answered = True
            except Temporary as error:
                if not answered:
                    if attempts.wait(error):
                        continue
                    raise
                answer = [Rejected(at, records[at].id, error) for at in pending]
            waiting = [item for item in answer if isinstance(item.error, Temporary)]
            final += [item for item in answer if not isinstance(item.error, Temporary)]
            if not waiting or not attempts.wait(_longest_wait(waiting)):
                return sorted(final + waiting, key=lambda item: item.position)
            pending = [item.position for item in waiting]

    def delete(self, ids: Sequence[str]) -> None:
        self._retry(lambda: self.store.delete(ids))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return self._retry(lambda: self.store.get(ids, parts=parts))

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        return self._retry(lambda: self.store.search(requests))

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Retry until the first record arrives; raise later errors, because a second scan may have another order."""

        def begin() -> tuple[Record | None, Iterator[Record]]:
            records = self.store.scan(where=where, parts=parts, batch=batch)
            return next(records, None), records

        first, records = self._retry(begin)
        if first is not None:
            yield first
            yield from records

    def count(self, where: Filter | None = None) -> int:
        return self._retry(lambda: self.store.count(where))

    def refresh(self) -> None:
        self._retry(self.store.refresh)

    def _retry(self, call: Callable[[], T]) -> T:
        return retried(call, self._policy)


class _Attempts:
    """The attempts of one operation, the first of which begins now."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._began = time.monotonic()
        self._failed = 0

    def wait(self, error: Temporary) -> bool:
        """Wait after a failed attempt, and return True; return False without waiting if the policy allows no other."""
        self._failed += 1
        if self._failed >= self._policy.attempts:
            return False
        left = self._policy.timeout - (time.monotonic() - self._began)
        seconds = _seconds_to_wait(self._policy, self._failed, error.retry_after, left)
        if seconds >= left:
            return False
        _log.warning("%s; retry %d of %d in %.2f s", error, self._failed, self._policy.attempts - 1, seconds)
        for watch in _WATCHERS.get():
            watch(error, seconds)
        time.sleep(seconds)
        return True


def _seconds_to_wait(policy: RetryPolicy, retry: int, retry_after: float | None, left: float) -> float:
    """Return the wait before a retry, counted from 1; ``left`` seconds remain of the timeout."""
    if retry_after is None or not retry_after >= 0.0:  # a negative number or NaN is not a valid wait
        doublings = min(retry - 1, _MAX_DOUBLINGS)
        return _RANDOM.uniform(0.0, min(policy.wait_max, policy.wait_initial * 2**doublings))
    jitter = max(0.0, min(policy.wait_jitter, (left - retry_after) / 2))  # it does not use up what is left
    return retry_after + _RANDOM.uniform(0.0, jitter)


def _at_positions(rejected: Sequence[Rejected], positions: Sequence[int]) -> list[Rejected]:
    """Convert positions in a part of a batch to ``positions`` in the batch."""
    return [Rejected(positions[item.position], item.id, item.error) for item in rejected]


def _longest_wait(waiting: Sequence[Rejected]) -> Temporary:
    """Return the error with the longest wait."""
    errors = [item.error for item in waiting if isinstance(item.error, Temporary)]
    return max(errors, key=lambda error: error.retry_after or 0.0)
