"""Repeats what may be repeated: ``Temporary`` errors of a store, with waits that grow and jitter, or as long as the server asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import stamina

from st_connectors.errors import Temporary
from st_connectors.filters import Filter
from st_connectors.schema import Schema
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["NO_RETRY", "RetryPolicy", "retrying"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to repeat: at most ``attempts`` calls within ``timeout`` seconds.

    The wait before repetition n is ``min(wait_max, wait_initial * 2 ** (n - 1) + jitter)``, jitter being random up to ``wait_jitter``; a
    server's own ``retry_after`` goes before it. All in seconds. A server that asks for a wait beyond ``timeout`` is not asked again.
    """

    attempts: int = 5
    timeout: float = 45.0
    wait_initial: float = 0.1
    wait_max: float = 5.0
    wait_jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be 1 or more, not {self.attempts}")
        if self.timeout <= 0 or min(self.wait_initial, self.wait_max, self.wait_jitter) < 0:
            raise ValueError("timeout must be above 0 and no wait below 0 seconds")


NO_RETRY = RetryPolicy(attempts=1)
"""Every error goes to the caller at once."""


def retrying(store: Store, policy: RetryPolicy | None = None) -> Store:
    """The same store, whose temporary errors are met by repeating the call; safe, since every operation may be repeated."""
    return _Retrying(store, policy or RetryPolicy())


class _Retrying:
    def __init__(self, store: Store, policy: RetryPolicy) -> None:
        self._store = store
        self._policy = policy

    @property
    def schema(self) -> Schema:
        return self._store.schema

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def create(self) -> None:
        self._repeated(self._store.create)

    def drop(self) -> None:
        self._repeated(self._store.drop)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Repeat the call, or only those of its records that were rejected for now.

        Once the store has answered for some records, a later temporary failure is not raised: the records it concerns are returned as rejected.
        """
        pending = list(range(len(records)))
        waiting: list[Rejected] = []
        refused: list[Rejected] = []
        answered = False
        try:
            for attempt in self._attempts():
                with attempt:
                    answer = _at(self._store.upsert([records[at] for at in pending]), pending)
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
        self._repeated(lambda: self._store.delete(ids))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return self._repeated(lambda: self._store.get(ids, parts=parts))

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        return self._repeated(lambda: self._store.search(requests))

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Begin again until the first record has come; after it an error goes to the caller, for the order is not promised to be the same."""
        for attempt in self._attempts():
            with attempt:
                records = self._store.scan(where=where, parts=parts, batch=batch)
                first = next(records, None)
        if first is not None:
            yield first
            yield from records

    def count(self, where: Filter | None = None) -> int:
        return self._repeated(lambda: self._store.count(where))

    def refresh(self) -> None:
        self._repeated(self._store.refresh)

    def close(self) -> None:
        self._store.close()

    def _repeated(self, call: Callable[[], T]) -> T:
        """The call, repeated as long as the policy says; one that succeeds at once has no loop of stamina's, which takes 0.07 ms to set up."""
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
        """The policy's attempts, within what is left of its timeout."""
        policy = self._policy

        def wait(error: Exception) -> bool | float:
            """Whether to go again, or after how many seconds."""
            if not isinstance(error, Temporary):
                return False
            wish = error.retry_after
            if wish is None or not wish >= 0.0:  # a negative wish, or NaN, is none
                return True
            return wish if wish <= policy.timeout else False

        return stamina.retry_context(
            on=wait,
            attempts=policy.attempts,
            timeout=policy.timeout if left is None else left,
            wait_initial=policy.wait_initial,
            wait_max=policy.wait_max,
            wait_jitter=policy.wait_jitter,
        )


def _at(rejected: Sequence[Rejected], positions: Sequence[int]) -> list[Rejected]:
    """Rejections of a part of a batch, at their positions in the batch."""
    return [Rejected(positions[item.position], item.id, item.error) for item in rejected]


def _longest_wait(waiting: Sequence[Rejected]) -> Temporary:
    """The error of the record that has to wait longest."""
    errors = [item.error for item in waiting if isinstance(item.error, Temporary)]
    return max(errors, key=lambda error: error.retry_after or 0.0)
