"""Runs a model in several processes, one for each device named: what ``device=[...]`` and a pool of workers do.

Each worker is a process of its own. On Linux those on the CPU are forked off one that has loaded the model, and share its memory; the others load it
from its folder. Inputs go out in chunks, at most two to a worker, and answers come back in whatever order; a worker that dies is replaced
and its chunks are computed again.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Self

from st_core.processes.fork_server import ForkServer, can_fork
from st_core.processes.spawn import PATIENCE, end, spawn
from st_core.processes.worker import Message, Recipe, died_early, serve
from st_core.progress import progress

if TYPE_CHECKING:
    from st_core.model import Model

__all__ = ["WorkerPool"]

AHEAD = 2
"""Chunks a worker holds: one that it computes, and the next."""

REPLACEMENTS = 3
"""How many workers that died during one call are replaced before it gives up."""

LARGEST = 5_000
"""Inputs of a chunk at most, where the caller says nothing; sentence-transformers 6.2 has the same."""


@dataclass(slots=True, eq=False)
class Worker:
    """A process at work: ``waiting`` are the chunks it was given and has not answered."""

    device: str
    place: int
    process: Any
    pipe: Any
    ready: bool = False
    waiting: deque[tuple[int, int]] = field(default_factory=deque)

    def stop(self) -> None:
        """Ask the process to end, and kill it where it does not."""
        self.pipe.close()  # an idle worker ends when its pipe does
        self.process.terminate()
        end(self.process)


class WorkerPool:
    """Processes that run one model, started with ``model.start_multi_process_pool`` and good for any number of calls.

    For one thread at a time: a second one that comes meanwhile gets a RuntimeError. The model's maximum length and what its pooling does with
    prompts are those of when the pool was started. ``with pool:`` stops it at the end. A process that starts a pool needs its main module
    guarded by ``if __name__ == "__main__":``, as every use of multiprocessing that spawns does.
    """

    def __init__(self, model: Model, devices: Sequence[Any]) -> None:
        """Start a worker for each device and wait until all are ready.

        Raises ValueError for a device that there is not before one is started, what loading in a worker raises, and RuntimeError where one dies.
        """
        if not devices:
            raise ValueError("a pool needs at least one device, for instance ['cpu', 'cpu']")
        check_devices(model, devices)
        self.checkpoint = model.checkpoint
        self._recipe = Recipe.of(model)
        self._devices = [str(device) for device in devices]
        self._lock = threading.Lock()
        self._call = 0
        self._workers: list[Worker] = []
        self._server: ForkServer | None = None
        self._forks = model._engine.graphs is None and can_fork()  # noqa: SLF001 - the runtimes of graphs have threads
        try:
            for place in range(len(self._devices)):
                self._workers.append(self._start(place))
            while not all(worker.ready for worker in self._workers):
                for worker, (kind, _, value) in self._answers():
                    self._note(worker, kind, value)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all workers; does nothing where they are ended already."""
        while self._workers:
            self._workers.pop().stop()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _start(self, place: int) -> Worker:
        device, cores = self._devices[place], cores_of(place, self._devices)
        if self._forks and device.partition(":")[0] == "cpu":
            process, pipe = self._forked(cores)
        else:
            process, pipe = spawn(serve, self._recipe, device, cores, name="st_core-worker")
        return Worker(device, place, process, pipe)

    def _forked(self, cores: tuple[int, ...]) -> tuple[Any, Any]:
        """A worker that shares the fork server's memory; the server is started where there is none, or none any more."""
        if self._server is not None:
            try:
                return self._server.fork(cores)
            except (EOFError, OSError):
                self._server.stop()
        self._server = ForkServer(self._recipe)
        return self._server.fork(cores)

    def _answers(self) -> Iterator[tuple[Worker, Message]]:
        """What has come from the workers, after waiting for something; of a dead one, a message "died" with its exit code."""
        waited = {worker.pipe: worker for worker in self._workers}
        waited |= {worker.process.sentinel: worker for worker in self._workers}
        for worker in dict.fromkeys(waited[each] for each in connection.wait(list(waited))):
            try:
                if worker.pipe.poll():
                    yield worker, pickle.loads(worker.pipe.recv_bytes())  # noqa: S301 - from our own process
                    continue
            except (EOFError, OSError):
                pass
            worker.process.join(PATIENCE)
            if worker.process.exitcode is None:  # closed its pipe and lives on
                worker.process.kill()
                worker.process.join()
            yield worker, ("died", (0, 0), worker.process.exitcode)

    def _note(self, worker: Worker, kind: str, value: Any) -> None:
        """Take a message that is no answer to a chunk; raises what it reports of a worker that cannot start."""
        if kind == "ready":
            worker.ready = True
        elif kind == "unready":
            raise value
        elif kind == "died":
            if not worker.ready:
                raise died_early(worker.device, value)
            self._workers.remove(worker)
            worker.stop()
            self._workers.append(self._start(worker.place))

    def _settle(self, worker: Worker, kind: str, value: Any) -> None:
        """The same during a call, where the pool ends if a worker that stands in for a dead one cannot start."""
        try:
            self._note(worker, kind, value)
        except BaseException:
            self.stop()
            raise

    def run(
        self, method: str, inputs: Sequence[Any], arguments: tuple[Any, ...], chunk_size: int | None, shown: bool | None
    ) -> list[Any]:
        """The results of a model's method for each chunk of the inputs, in order; ``arguments`` follow the inputs.

        Raises what the method raises in a worker; RuntimeError where workers die again and again, and for a second thread.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("another thread is using this pool of workers; start one for each thread")
        try:
            if not self._workers:
                raise RuntimeError("this pool of workers is stopped; start another with start_multi_process_pool")
            size = chunk_size or max(1, min(ceil(len(inputs) / len(self._workers) / 10), LARGEST))
            chunks = [inputs[start : start + size] for start in range(0, len(inputs), size)]
            job = sendable(method, arguments)
            with progress(len(inputs), shown) as advance:
                return self._collect(job, chunks, advance)
        except (KeyboardInterrupt, SystemExit):
            self.stop()  # an interrupted message cannot be taken up again
            raise
        finally:
            self._lock.release()

    def _collect(self, job: bytes, chunks: Sequence[Sequence[Any]], advance: Any) -> list[Any]:
        self._call += 1  # answers to chunks of an earlier call, which an error ended, are told by it
        results: dict[int, Any] = {}
        left = deque(range(len(chunks)))
        deaths = 0
        while len(results) < len(chunks):
            for worker in self._workers:
                while left and len(worker.waiting) < AHEAD:
                    self._send(worker, left.popleft(), job, chunks)
            for worker, (kind, chunk, value) in self._answers():
                if kind == "died":
                    deaths += 1
                    left.extendleft(number for call, number in reversed(worker.waiting) if call == self._call)
                    if deaths > REPLACEMENTS:
                        self.stop()
                        raise RuntimeError(
                            f"workers died {deaths} times, the last on {worker.device} with exit code {value}; the pool is stopped. "
                            "A negative code is the signal that ended it; 9 often means that memory ran out"
                        )
                if kind in ("done", "failed"):
                    worker.waiting.remove(chunk)
                    if chunk[0] != self._call:
                        continue
                    if kind == "failed":
                        raise value
                    results[chunk[1]] = value
                    advance(len(chunks[chunk[1]]))
                else:
                    self._settle(worker, kind, value)
        return [results[number] for number in range(len(chunks))]

    def _send(self, worker: Worker, number: int, job: bytes, chunks: Sequence[Sequence[Any]]) -> None:
        worker.waiting.append((self._call, number))
        with suppress(OSError):  # a dead worker is noticed where answers are waited for
            worker.pipe.send_bytes(pickle.dumps(((self._call, number), job, chunks[number])))


def sendable(method: str, arguments: tuple[Any, ...]) -> bytes:
    """A method's name and arguments as bytes; raises ValueError for an argument that cannot go to another process."""
    try:
        return pickle.dumps((method, arguments))
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ValueError(
            f"an argument cannot be sent to workers ({error}); an activation_fn has to be a class or a function of a module"
        ) from error


def cores_of(place: int, devices: Sequence[str]) -> tuple[int, ...]:
    """The cores of the worker at a place among those on the CPU, each having its own part where there are enough; none for other devices."""
    if not devices[place].startswith("cpu"):
        return ()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    peers = [index for index, device in enumerate(devices) if device.startswith("cpu")]
    share = max(1, len(cores) // len(peers))
    first = peers.index(place) * share % len(cores)
    return tuple(cores[first : first + share])


def check_devices(model: Model, devices: Sequence[Any]) -> None:
    """Raise ValueError for a device that a model cannot be loaded on."""
    from st_core.engine.choose import check_device

    for device in devices:
        check_device(model.backend, device)
        if model._engine.uses_torch and str(device) != "cpu":  # noqa: SLF001 - a light route's parent has not imported torch
            from st_core.backends.torch.backend import pick_device

            pick_device(device)


def default_devices() -> list[str]:
    """Every CUDA device, or else up to four workers on the CPU, not more than it has cores."""
    try:
        import torch
    except ImportError:
        return ["cpu"] * min(4, os.cpu_count() or 1)
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"] * min(4, os.cpu_count() or 1)


@contextmanager
def pool_for(model: Model, device: Any, pool: Any) -> Iterator[WorkerPool]:
    """The pool of a call: the one given, or one for this call alone on a list of devices; raises ValueError for one of another model."""
    if pool is None:
        with WorkerPool(model, device) as made:
            yield made
        return
    if not isinstance(pool, WorkerPool):
        raise TypeError(f"pool is a {type(pool).__name__}; expected what start_multi_process_pool gives")
    if pool.checkpoint is not model.checkpoint:
        raise ValueError("the pool was started by another model; start one with this model's start_multi_process_pool")
    yield pool
