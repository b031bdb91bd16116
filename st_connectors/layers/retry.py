"""Retry operations that fail with a ``Temporary`` error, after exponential waits or those that the server requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import stamina

from st_connectors.errors import Temporary
from st_connectors.filters import Filter
from st_connectors.layers.passing import Passing
from st_connectors.schema import Schema
from st_connectors.store import Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["NO_RETRY", "RetryPolicy", "retrying"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to retry: at most ``attempts`` calls within ``timeout`` seconds.

    The wait before retry n is ``min(wait_max, wait_initial * 2 ** (n - 1) + jitter)`` seconds with a random jitter up
    to ``wait_jitter``; a ``retry_after`` of the server takes precedence. If the wait would exceed ``timeout``, the call
    is not retried.
    """

    attempts: int = 5
    timeout: float = 45.0
    wait_initial: float = 0.1
    wait_max: float = 5.0
    wait_jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if self.timeout <= 0 or min(self.wait_initial, self.wait_max, self.wait_jitter) < 0:
            raise ValueError("timeout must be above 0 and no wait below 0 seconds")


NO_RETRY = RetryPolicy(attempts=1)
"""The policy that never retries."""


def retrying(store: Store, policy: RetryPolicy | None = None) -> Store:
    """Return a store that retries the operations of ``store``, which may all be repeated safely."""
    return _Retrying(store, policy or RetryPolicy())


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

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Retry the complete call, or only the records that were rejected with a temporary error.

        After a call that succeeded for some records, a temporary error of a retry is not raised; its records are
        returned as rejected.
        """
        pending = list(range(len(records)))
        waiting: list[Rejected] = []
        refused: list[Rejected] = []
        answered = False
        try:
            for attempt in self._attempts():
                with attempt:
                    answer = _at_positions(self.store.upsert([records[at] for at in pending]), pending)
                    answered = True
                    waiting = [item for item in answer if isinstance(item.error, Temporary)]
                    refused += [item for item in answer if not isinstance(item.error, Temporary)]
                    pending = [item.position for item in waiting]
                    if waiting:
                        raise _longest_wait(waiting)
        except Temporary as error:
            if not answered:
                raise
            if not any(error is item.error for item in waiting):
                waiting = [Rejected(at, records[at].id, error) for at in pending]
        return sorted(refused + waiting, key=lambda item: item.position)

    def delete(self, ids: Sequence[str]) -> None:
        self._retry(lambda: self.store.delete(ids))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return self._retry(lambda: self.store.get(ids, parts=parts))

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        return self._retry(lambda: self.store.search(requests))

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Retry until the first record arrives; raise later errors, because a second scan may have another order."""
        for attempt in self._attempts():
            with attempt:
                records = self.store.scan(where=where, parts=parts, batch=batch)
                first = next(records, None)
        if first is not None:
            yield first
            yield from records

    def count(self, where: Filter | None = None) -> int:
        return self._retry(lambda: self.store.count(where))

    def refresh(self) -> None:
        self._retry(self.store.refresh)

    def _retry(self, call: Callable[[], T]) -> T:
        """Return the result of ``call``, and retry it according to the policy.

        The first call is outside the retry loop, because stamina 26.1 takes 0.07 ms to set up the loop.
        """
        began = time.monotonic()
        try:
            return call()
        except Temporary as error:
            failed = error
        left = self._policy.timeout - (time.monotonic() - began)
        if left <= 0:
            raise failed
        for attempt in self._attempts(left):
            with attempt:
                if attempt.num == 1:
                    raise failed
                return call()
        raise AssertionError  # the last attempt returns or raises

    def _attempts(self, left: float | None = None) -> Iterable[stamina.Attempt]:
        """Return the attempts that the policy allows within the ``left`` remaining seconds of its timeout."""
        policy = self._policy

        def wait(error: Exception) -> bool | float:
            """Return whether to retry, or the wait in seconds before the retry."""
            if not isinstance(error, Temporary):
                return False
            seconds = error.retry_after
            if seconds is None or not seconds >= 0.0:  # a negative number or NaN is not a valid wait
                return True
            return seconds if seconds <= policy.timeout else False

        return stamina.retry_context(
            on=wait,
            attempts=policy.attempts,
            timeout=policy.timeout if left is None else left,
            wait_initial=policy.wait_initial,
            wait_max=policy.wait_max,
            wait_jitter=policy.wait_jitter,
        )


def _at_positions(rejected: Sequence[Rejected], positions: Sequence[int]) -> list[Rejected]:
    """Convert positions in a part of a batch to ``positions`` in the batch."""
    return [Rejected(positions[item.position], item.id, item.error) for item in rejected]


def _longest_wait(waiting: Sequence[Rejected]) -> Temporary:
    """Return the error with the longest wait."""
    errors = [item.error for item in waiting if isinstance(item.error, Temporary)]
    return max(errors, key=lambda error: error.retry_after or 0.0)
