"""Compute the requests of many clients together, on threads of their own.

A job is prepared (tokenized) by a pool of threads, divided into pieces of at most one batch, computed together with
pieces of other jobs by a lane, and finished (converted) by the pool again. A lane is a thread with a model on one
device. The event loop of the server only waits for the future of a job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.waiting import Piece, Waiting
from st_core.engine.prepared import Computed, Prepared

__all__ = ["Batcher", "Compute", "Job", "QueueLimits", "Watch", "divide"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

Compute: TypeAlias = Callable[[Sequence[Prepared]], Sequence[Computed[Any]]]
"""The second of the three steps of encoding, of a model on one device."""

Watch: TypeAlias = Callable[[int, int, float], None]
"""A function that is called after each batch with its numbers of pieces and tokens, and the seconds that it took."""

LONGEST_WAIT_S = 30
"""The longest time that ``Retry-After`` tells a client to wait."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait, and how it is batched.

    ``jobs`` and ``tokens`` limit what is in the server at a time. ``batch_tokens`` limits a batch. ``delay_s`` is the
    time for which a text of ``batch_tokens`` tokens lets shorter ones pass. While a longer piece is computed, pieces of
    up to ``short_tokens`` tokens are computed beside it.
    """

    jobs: int = 512
    tokens: int = 2_000_000
    batch_tokens: int = 2048
    delay_s: float = 0.25
    short_tokens: int = 64

    def due(self, arrival: float, tokens: int) -> float:
        """Return when a job is due that arrived at a time and has so many tokens."""
        return arrival + self.delay_s * tokens / self.batch_tokens


@dataclass(slots=True, eq=False)
class Job(Generic[Result]):
    """A call of a client on its way through the server.

    ``prepare`` returns the tokens of the call, and ``finish`` converts what was computed for its parts, in the order of
    the inputs, to the result. ``parts`` are the positions of the inputs of each part.
    """

    client: str
    prepare: Callable[[], Prepared]
    finish: Callable[[Job[Result]], Result]
    arrival: float = field(default_factory=time.monotonic)
    future: Future[Result] = field(default_factory=Future)
    prepared: Prepared | None = None
    parts: list[list[int]] = field(default_factory=list)
    computed: list[Computed[Any] | None] = field(default_factory=list)
    left: int = 0
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the job has a result or an error, or its client left."""
        return self.future.done()

    def cancel(self) -> None:
        """Give the job up: what is not computed yet is not computed."""
        self.future.cancel()


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One part of a job."""

    job: Job[Any]
    number: int
    prepared: Prepared


def divide(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return the positions of inputs in parts of up to ``most`` tokens; a longer input is a part of its own."""
    parts: list[list[int]] = []
    room = 0
    for position, length in enumerate(lengths):
        if not parts or length > room:
            parts.append([])
            room = most
        parts[-1].append(position)
        room -= length
    return parts


class Batcher:
    """Computes jobs of one model; safe in threads. ``close`` it at the end."""

    def __init__(
        self,
        name: str,
        computes: Sequence[Compute],
        pool: ThreadPoolExecutor,
        limits: QueueLimits,
        watch: Watch = lambda _pieces, _tokens, _seconds: None,
    ) -> None:
        """Start one lane for each device, and one more for short pieces."""
        self._name = name
        self._pool = pool
        self._limits = limits
        self._watch = watch
        self._changed = threading.Condition()
        self._waiting: Waiting[_Part] = Waiting()
        self._jobs: set[Job[Any]] = set()
        self._batch_tokens = limits.batch_tokens
        self._rate = 0.0
        self._long = 0
        self._is_closing = self._is_closed = False
        lanes: list[tuple[Compute, int | None]] = [(compute, None) for compute in computes]
        lanes.append((computes[0], limits.short_tokens))
        self._threads = [
            threading.Thread(target=self._run, args=lane, name=f"lane-{name}-{number}", daemon=True)
            for number, lane in enumerate(lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def jobs(self) -> int:
        """The number of jobs in the server."""
        return len(self._jobs)

    @property
    def tokens(self) -> int:
        """The number of tokens that wait."""
        return self._waiting.tokens

    def submit(self, job: Job[Result]) -> Job[Result]:
        """Accept a job and return it; raise Fault if the queue is full or the server is stopping."""
        with self._changed:
            self._check_room()
            self._jobs.add(job)
        job.future.add_done_callback(lambda _: self._forget(job))
        self._pool.submit(self._prepare, job)
        return job

    def _check_room(self) -> None:
        if self._is_closing:
            raise Fault(FaultKind.UNAVAILABLE, "the server is stopping", retry_after=1)
        if len(self._jobs) >= self._limits.jobs or self._waiting.tokens >= self._limits.tokens:
            raise Fault(FaultKind.OVERLOADED, "the queue is full; try again later", retry_after=self._wait_s())

    def _wait_s(self) -> int:
        """Return in how many seconds what waits now will be computed, from 1 on."""
        seconds = self._waiting.tokens / self._rate if self._rate else 1.0
        return max(1, min(LONGEST_WAIT_S, round(seconds)))

    def _forget(self, job: Job[Any]) -> None:
        """Remove a job that is over, with its parts that still wait."""
        with self._changed:
            self._jobs.discard(job)
            if job.left:
                self._waiting.drop(lambda part: part.job is job, job.client)
            self._changed.notify_all()

    def _prepare(self, job: Job[Any]) -> None:
        """Tokenize a job and put its parts into the queue."""
        if job.is_over:
            return
        began = time.monotonic()
        try:
            prepared = job.prepare()
        except Exception as error:  # noqa: BLE001 - the error of the job
            _fail(job, error)
            return
        job.prepared, job.tokenize_s = prepared, time.monotonic() - began
        lengths = np.maximum(prepared.lengths, 1).tolist()
        parts = divide(lengths, self._batch_tokens)
        if not parts:
            self._finish(job)
            return
        total = sum(lengths)
        with self._changed:
            if job.is_over:
                return
            job.parts, job.computed, job.left = parts, [None] * len(parts), len(parts)
            due = self._limits.due(job.arrival, total)
            for number, positions in enumerate(parts):
                part = _Part(job, number, prepared if len(parts) == 1 else prepared.take(positions))
                tokens = sum(lengths[position] for position in positions)
                self._waiting.add(Piece(job.client, tokens, due, part))
            self._changed.notify_all()

    def _run(self, compute: Compute, longest: int | None) -> None:
        """Compute batches until the batcher is closed."""
        while True:
            with self._changed:
                pieces = self._next(longest)
                while not pieces:
                    if self._is_closed:
                        return
                    self._changed.wait()
                    pieces = self._next(longest)
                is_long = any(piece.tokens > self._limits.short_tokens for piece in pieces)
                self._long += is_long
                if is_long and self._waiting:
                    self._changed.notify_all()  # the lane for short pieces may compute beside this batch
            began = time.monotonic()
            parts = [piece.content for piece in pieces]
            try:
                self._compute(compute, parts, began)
            except Exception as error:  # a bug: the lane goes on
                logger.exception("%s: a batch failed", self._name)
                for part in parts:
                    _fail(part.job, error)
            with self._changed:
                self._long -= is_long
            self._measure(pieces, time.monotonic() - began)

    def _next(self, longest: int | None) -> list[Piece[_Part]]:
        """Return the next batch of a lane; the lane for short pieces has none unless another computes a longer one."""
        if not self._waiting or (longest is not None and not self._long):
            return []
        return self._waiting.take(self._batch_tokens if longest is None else longest, longest)

    def _measure(self, pieces: Sequence[Piece[_Part]], seconds: float) -> None:
        """Report a batch, and update the rate at which tokens are computed."""
        tokens = sum(piece.tokens for piece in pieces)
        rate = tokens / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate
        self._watch(len(pieces), tokens, seconds)

    def _compute(self, compute: Compute, parts: list[_Part], began: float) -> None:
        """Compute parts together; if that fails, compute the halves, until the job that fails is alone."""
        parts = [part for part in parts if not part.job.is_over]
        if not parts:
            return
        try:
            computed = compute([part.prepared for part in parts])
        except Exception as error:  # noqa: BLE001 - the error of one of the jobs
            self._divide(compute, parts, began, error)
            return
        for part, each in zip(parts, computed, strict=True):
            self._store(part, each, began)

    def _divide(self, compute: Compute, parts: list[_Part], began: float, error: Exception) -> None:
        """Fail the job of parts that cannot be computed, or compute halves of the parts."""
        if isinstance(error, MemoryError):
            self._batch_tokens = max(1, self._batch_tokens // 2)
            logger.warning("%s: out of memory; batches now have up to %d tokens", self._name, self._batch_tokens)
            if len(parts) == 1:
                parts = _halves(parts[0])
        if len(parts) == 1 or (len({id(part.job) for part in parts}) == 1 and not isinstance(error, MemoryError)):
            _fail(parts[0].job, error)
            return
        middle = len(parts) // 2
        self._compute(compute, parts[:middle], began)
        self._compute(compute, parts[middle:], began)

    def _store(self, part: _Part, computed: Computed[Any], began: float) -> None:
        """Store what was computed for a part; the last part of a job finishes it."""
        job = part.job
        with self._changed:
            job.computed[part.number] = computed
            job.left -= 1
            job.queue_s = max(job.queue_s, began - job.arrival - job.tokenize_s)
            job.compute_s += time.monotonic() - began
            is_last = job.left == 0
        if is_last:
            self._pool.submit(self._finish, job)

    def _finish(self, job: Job[Any]) -> None:
        """Convert what was computed for a job to its result."""
        if job.is_over:
            return
        job.computed = [each for _, each in sorted(zip(job.parts, job.computed, strict=True), key=lambda pair: pair[0])]
        try:
            result = job.finish(job)
        except Exception as error:  # noqa: BLE001 - the error of the job
            _fail(job, error)
            return
        if job.future.set_running_or_notify_cancel():
            job.future.set_result(result)

    def drain(self, timeout_s: float) -> bool:
        """Refuse new jobs and wait for the others; return whether all of them ended in time."""
        with self._changed:
            self._is_closing = True
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)

    def close(self) -> None:
        """Cancel what is left and stop the lanes; closing twice is not an error."""
        self.drain(0)
        for job in list(self._jobs):
            job.cancel()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()


def _halves(part: _Part) -> list[_Part]:
    """Return two parts in place of one, which cannot be computed at once; the same part if it has one input."""
    job, positions = part.job, part.job.parts[part.number]
    middle = len(positions) // 2
    if not middle:
        return [part]
    assert job.prepared is not None
    job.parts[part.number] = positions[:middle]
    job.parts.append(positions[middle:])
    job.computed.append(None)
    job.left += 1
    first = _Part(job, part.number, job.prepared.take(positions[:middle]))
    return [first, _Part(job, len(job.parts) - 1, job.prepared.take(positions[middle:]))]


def _fail(job: Job[Any], error: Exception) -> None:
    """End a job with an error, unless it is over."""
    if not job.future.done() and job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
