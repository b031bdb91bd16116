"""A process that holds a loaded model and forks workers off itself, so that its weights are in memory once, in whatever layout they run.

It is spawned, so that nothing of the caller's threads gets into it, and it computes with one thread: a child whose parent has run OpenMP's threads
waits for them for ever (GNU libgomp, which torch is built with). A child may have as many threads as it wants. Linux only, since workers are
watched through descriptors of processes (``pidfd_open``), which do not mistake one process for another that got its number.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe, connection, reduction
from typing import TYPE_CHECKING, Any

from st_core.errors import ModelError
from st_core.processes.spawn import PATIENCE, end, spawn
from st_core.processes.worker import died_early, live, pin, portable, set_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from st_core.model import Model
    from st_core.processes.worker import Recipe

__all__ = ["ForkServer", "Forked", "can_fork"]

UNKNOWN = 255
"""The exit code of a worker whose server is gone, which alone was told the true one; multiprocessing's own fork server has the same."""


def can_fork() -> bool:
    """Whether processes can be forked and watched here."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system, an older kernel
        return False
    return True


@dataclass(slots=True, eq=False)
class Forked:
    """A forked worker, with what multiprocessing's processes have."""

    pid: int
    sentinel: int
    server: ForkServer
    exitcode: int | None = None

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not connection.wait([self.sentinel], 0)

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, and take its exit code."""
        if self.exitcode is None and connection.wait([self.sentinel], timeout):
            self.exitcode = self.server.exit_code(self.pid)

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.sentinel, number)

    def close(self) -> None:
        """Give back its descriptor."""
        os.close(self.sentinel)


class ForkServer:
    """A process with the model of a recipe on the CPU, for one thread at a time."""

    def __init__(self, recipe: Recipe) -> None:
        """Start it and wait until the model is loaded; raises what loading raises, RuntimeError with the exit code where it dies."""
        self._process, self._pipe = spawn(_serve, recipe, name="st_core-fork-server")
        try:
            failed = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(PATIENCE)
            failed = died_early("cpu", self._process.exitcode)
        except BaseException:
            self.stop()
            raise
        if failed is not None:
            self.stop()
            raise failed

    def fork(self, cores: Sequence[int]) -> tuple[Forked, Any]:
        """A worker on some cores, and the pipe to it; raises OSError or EOFError where the server is gone."""
        ours, theirs = Pipe()
        try:
            self._pipe.send(("fork", tuple(cores)))
            reduction.send_handle(self._pipe, theirs.fileno(), self._process.pid)
            pid = self._pipe.recv()
            return Forked(pid, os.pidfd_open(pid), self), ours
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def exit_code(self, pid: int) -> int:
        """The exit code of a worker that has ended, minus the number of the signal that ended it."""
        try:
            self._pipe.send(("ended", pid))
            return int(self._pipe.recv())
        except (EOFError, OSError):
            return UNKNOWN

    def stop(self) -> None:
        """End it, and with it the workers that it has forked and that have not ended."""
        self._pipe.close()  # which ends it
        end(self._process)


def _serve(pipe: Any, recipe: Recipe) -> None:
    """What the server does: load the model, then fork and tell exit codes until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    set_threads(1)
    try:
        model = recipe.make("cpu")
        _make_ready(model)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        pipe.send(portable(error))
        return
    gc.collect()
    gc.freeze()  # a later collection would write into what the workers share
    pipe.send(None)
    living: set[int] = set()
    try:
        while True:
            asked, value = pipe.recv()
            if asked == "ended":
                pipe.send(os.waitstatus_to_exitcode(os.waitpid(value, 0)[1]))
                living.discard(value)
            else:
                pid = _fork(pipe, model, value)
                living.add(pid)
                pipe.send(pid)
    except EOFError:  # the caller is gone, or wants no more workers: nobody waits for what they compute
        for pid in living:
            os.kill(pid, signal.SIGKILL)


def _make_ready(model: Model) -> None:
    """Load what a router would load when it is first used, for what a worker loads is its own; what cannot be loaded, a worker that needs it tells."""
    engine = model._engine  # noqa: SLF001
    for task in engine.tasks():
        with suppress(ModelError, ImportError):
            engine.runner(task)


def _fork(pipe: Any, model: Model, cores: tuple[int, ...]) -> int:
    """The number of a new worker, which answers through the pipe that follows in the message."""
    handle = reduction.recv_handle(pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            pipe.close()
            pin(cores)
            live(connection.Connection(handle), lambda: model)
            code = 0
        except SystemExit as end:  # asked to end by a signal
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:  # noqa: BLE001 - nothing of the server's may run in its copy
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(handle)
    return pid
