"""Run a model in several worker processes, one per device, for ``device=[...]`` and ``pool=``.

On Linux, workers on the CPU are forked from a process that has loaded the model, and share its memory; other workers
load the model from its folder. Inputs are sent in chunks, at most two per worker at a time, and results arrive in any
order. A worker that dies is replaced, and its chunks are computed again.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Self

from st_core.processes.fork_server import ForkServer, can_fork
from st_core.processes.spawn import PATIENCE, Process, end, spawn
from st_core.processes.worker import Job, Message, Recipe, died_early, serve
from st_core.progress import Advance, progress

__all__ = ["WorkerPool", "default_devices"]

AHEAD = 2
"""Number of chunks that a worker has at a time: the one that it computes, and the next."""

REPLACEMENTS = 3
"""Number of workers replaced during one call before the call fails."""

LARGEST = 5_000
"""Maximum number of inputs per chunk if the caller sets no size, as in sentence-transformers 6.2."""


@dataclass(slots=True, eq=False)
class Worker:
    """A worker process; ``unanswered`` are the chunks sent to it without a result so far, as (call, number)."""

    device: str
    place: int
    process: Process
    pipe: Connection
    ready: bool = False
    unanswered: deque[tuple[int, int]] = field(default_factory=deque)

    def stop(self) -> None:
        """End the process, and kill it if it does not end in time."""
        self.pipe.close()  # an idle worker ends when its pipe closes
        self.process.terminate()
        end(self.process)


class WorkerPool:
    """Processes that run one model, started with ``model.start_multi_process_pool`` and usable for any number of calls.

    Only one thread may use a pool at a time; a second thread gets a RuntimeError. The maximum length of the model and
    whether its pooling includes prompts are fixed when the pool is started. ``with pool:`` stops the pool at the end of
    the block. The main module of a program that starts a pool needs the guard ``if __name__ == "__main__":``, as with
    multiprocessing whenever it spawns processes.
    """

    def __init__(self, recipe: Recipe, devices: Sequence[str], *, owner: object = None, share: bool = True) -> None:
        """Start a worker for each device and wait until all workers are ready.

        ``owner`` identifies the model that the pool belongs to. ``share`` allows forking; it must be False for a
        runtime that starts threads, because a process with such threads must not be forked. Raises ValueError without a
        device, the errors of loading in a worker, and RuntimeError if a worker dies.
        """
        if not devices:
            raise ValueError("a pool needs at least one device, for instance ['cpu', 'cpu']")
        self.owner = owner
        self._recipe = recipe
        self._devices = tuple(devices)
        self._lock = threading.Lock()
        self._call = 0
        self._workers: list[Worker] = []
        self._server: ForkServer | None = None
        self._forks = share and can_fork()
        try:
            for place in range(len(self._devices)):
                self._workers.append(self._start(place))
            while not all(worker.ready for worker in self._workers):
                for worker, (kind, _, content) in self._messages():
                    self._note(worker, kind, content)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all workers; stopping a stopped pool has no effect."""
        while self._workers:
            self._workers.pop().stop()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _start(self, place: int) -> Worker:
        device, cores = self._devices[place], cores_of(place, self._devices)
        if self._forks and device.partition(":")[0] == "cpu":
            process, pipe = self._fork(cores)
        else:
            process, pipe = spawn(serve, self._recipe, device, cores, name="st_core-worker")
        return Worker(device, place, process, pipe)

    def _fork(self, cores: tuple[int, ...]) -> tuple[Process, Connection]:
        """Fork a worker from the server, which is started if it is not running."""
        if self._server is not None:
            try:
                return self._server.fork(cores)
            except (EOFError, OSError):
                self._server.stop()
        self._server = ForkServer(self._recipe)
        return self._server.fork(cores)

    def _messages(self) -> Iterator[tuple[Worker, Message]]:
        """Wait for messages and yield those that arrived; a dead worker yields a message "died" with its exit code."""
        sources: dict[object, Worker] = {}
        for worker in self._workers:
            sources |= {worker.pipe: worker, worker.process.sentinel: worker}
        waiting = [each for worker in self._workers for each in (worker.pipe, worker.process.sentinel)]
        for worker in dict.fromkeys(sources[each] for each in connection.wait(waiting)):
            try:
                if worker.pipe.poll():
                    yield worker, pickle.loads(worker.pipe.recv_bytes())  # noqa: S301 - sent by a worker of this pool
                    continue
            except (EOFError, OSError):
                pass
            worker.process.join(PATIENCE)
            if worker.process.exitcode is None:  # the worker closed its pipe but has not ended
                worker.process.kill()
                worker.process.join()
            yield worker, ("died", (0, 0), worker.process.exitcode)

    def _note(self, worker: Worker, kind: str, content: object) -> None:
        """Handle a message about the state of a worker.

        Raise the error of a worker that could not start; replace a worker that died.
        """
        if kind == "ready":
            worker.ready = True
        elif kind == "unready":
            assert isinstance(content, Exception)
            raise content
        elif kind == "died":
            if not worker.ready:
                raise died_early(worker.device, content)
            self._workers.remove(worker)
            worker.stop()
            self._workers.append(self._start(worker.place))

    def _note_or_stop(self, worker: Worker, kind: str, content: object) -> None:
        """Handle a message about the state of a worker during a call; stop the pool if the replacement cannot start."""
        try:
            self._note(worker, kind, content)
        except BaseException:
            self.stop()
            raise

    def run(
        self,
        job: Job,
        inputs: Sequence[object],
        arguments: tuple[object, ...],
        chunk_size: int | None,
        show_progress: bool | None,
    ) -> list[object]:
        """Return the results of ``job(model, chunk, *arguments)`` for all chunks of the inputs, in order.

        Raises the errors of the job, and RuntimeError if workers die repeatedly or another thread uses the pool.
        ``chunk_size`` None means a size computed from the number of workers.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("another thread is using this pool of workers; start one for each thread")
        try:
            if not self._workers:
                raise RuntimeError("this pool of workers is stopped; start another with start_multi_process_pool")
            size = chunk_size or max(1, min(ceil(len(inputs) / len(self._workers) / 10), LARGEST))
            chunks = [inputs[start : start + size] for start in range(0, len(inputs), size)]
            pickled = pickle_job(job, arguments)
            with progress(len(inputs), show_progress) as advance:
                return self._collect(pickled, chunks, advance)
        except (KeyboardInterrupt, SystemExit):
            self.stop()  # an interrupted message cannot be resumed
            raise
        finally:
            self._lock.release()

    def _collect(self, job: bytes, chunks: Sequence[Sequence[object]], advance: Advance) -> list[object]:
        self._call += 1  # tells results of an earlier, failed call apart
        results: dict[int, object] = {}
        unsent = deque(range(len(chunks)))
        deaths = 0
        while len(results) < len(chunks):
            for worker in self._workers:
                while unsent and len(worker.unanswered) < AHEAD:
                    self._send(worker, unsent.popleft(), job, chunks)
            for worker, (kind, chunk, content) in self._messages():
                if kind == "died":
                    deaths += 1
                    unsent.extendleft(number for call, number in reversed(worker.unanswered) if call == self._call)
                    if deaths > REPLACEMENTS:
                        self.stop()
                        raise RuntimeError(
                            f"workers died {deaths} times, the last on {worker.device} with exit code {content}; the "
                            "pool is stopped. "
                            "A negative code is the signal that ended it; 9 often means that memory ran out"
                        )
                if kind in ("done", "failed"):
                    worker.unanswered.remove(chunk)
                    if chunk[0] != self._call:
                        continue
                    if kind == "failed":
                        assert isinstance(content, Exception)
                        raise content
                    results[chunk[1]] = content
                    advance(len(chunks[chunk[1]]))
                else:
                    self._note_or_stop(worker, kind, content)
        return [results[number] for number in range(len(chunks))]

    def _send(self, worker: Worker, number: int, job: bytes, chunks: Sequence[Sequence[object]]) -> None:
        worker.unanswered.append((self._call, number))
        with suppress(OSError):  # _messages reports a dead worker
            worker.pipe.send_bytes(pickle.dumps(((self._call, number), job, chunks[number])))


def pickle_job(job: Job, arguments: tuple[object, ...]) -> bytes:
    """Pickle a job and its arguments; raise ValueError for an argument that cannot be sent to another process."""
    try:
        return pickle.dumps((job, arguments))
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ValueError(
            f"an argument cannot be sent to workers ({error}); an activation_fn has to be a class or a function of a "
            "module"
        ) from error


def cores_of(place: int, devices: Sequence[str]) -> tuple[int, ...]:
    """Return the cores for the worker with index ``place``; no cores for a worker on a device other than the CPU.

    Workers on the CPU get separate, equal shares of the cores; with fewer cores than workers, they share cores.
    """
    if not devices[place].startswith("cpu"):
        return ()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    peers = [index for index, device in enumerate(devices) if device.startswith("cpu")]
    share = max(1, len(cores) // len(peers))
    first = peers.index(place) * share % len(cores)
    return tuple(cores[first : first + share])


def default_devices() -> list[str]:
    """Return all CUDA devices or, if there are none, "cpu" up to four times, at most once per core."""
    try:
        import torch
    except ImportError:
        return ["cpu"] * min(4, os.cpu_count() or 1)
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"] * min(4, os.cpu_count() or 1)
