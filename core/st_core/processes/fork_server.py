"""Run a process that has loaded a model and forks workers, so that they share one copy of the weights.

The process is spawned, so that it inherits no threads of the caller, and it computes with one thread: a child of a
process that has run OpenMP threads would wait for them forever (GNU libgomp, which torch is built with). A forked
worker may use any number of threads. Forking is limited to Linux, because workers are observed through process
descriptors (``pidfd_open``), which never refer to another process that reuses a process id.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe, connection, reduction
from multiprocessing.connection import Connection

from st_core.processes.spawn import PATIENCE, Process, end, spawn
from st_core.processes.worker import Recipe, died_early, live, pin, portable, set_threads

__all__ = ["ForkServer", "ForkedProcess", "can_fork"]

UNKNOWN = 255
"""The exit code reported for a worker whose parent, the fork server, has ended.

The fork server of multiprocessing uses the same code.
"""


def can_fork() -> bool:
    """Return whether this system supports forking and process descriptors."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # not Linux, or an older kernel
        return False
    return True


@dataclass(slots=True, eq=False)
class ForkedProcess:
    """A forked worker with the interface of ``multiprocessing.Process``."""

    pid: int
    sentinel: int
    server: ForkServer
    exitcode: int | None = None

    def is_alive(self) -> bool:
        """Return whether the process is running."""
        return not connection.wait([self.sentinel], 0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process ends, at most ``timeout`` seconds, and read its exit code."""
        if self.exitcode is None and connection.wait([self.sentinel], timeout):
            self.exitcode = self.server.exit_code(self.pid)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.sentinel, number)

    def close(self) -> None:
        """Close the process descriptor."""
        os.close(self.sentinel)


class ForkServer:
    """The handle of a fork server in its parent process; not safe in threads."""

    def __init__(self, recipe: Recipe) -> None:
        """Start the process and wait until its model is loaded.

        Raises the errors of loading, and RuntimeError with the exit code if the process dies.
        """
        self._process: Process
        self._process, self._pipe = spawn(_serve, recipe, name="st_core-fork-server")
        try:
            error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(PATIENCE)
            error = died_early("cpu", self._process.exitcode)
        except BaseException:
            self.stop()
            raise
        if error is not None:
            self.stop()
            raise error

    @property
    def pid(self) -> int | None:
        """The process id of the server."""
        return self._process.pid

    def fork(self, cores: Sequence[int]) -> tuple[ForkedProcess, Connection]:
        """Fork a worker that runs on the given cores; return its process and the pipe to it.

        Raises OSError or EOFError if the server has ended.
        """
        ours, theirs = Pipe()
        try:
            self._pipe.send(("fork", tuple(cores)))
            reduction.send_handle(self._pipe, theirs.fileno(), self._process.pid)
            pid = self._pipe.recv()
            return ForkedProcess(pid, os.pidfd_open(pid), self), ours
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def exit_code(self, pid: int) -> int:
        """Return the exit code of a worker that has ended, negative for a signal."""
        try:
            self._pipe.send(("exit code", pid))
            return int(self._pipe.recv())
        except (EOFError, OSError):
            return UNKNOWN

    def stop(self) -> None:
        """End the server and the forked workers that are still running."""
        self._pipe.close()  # the server ends when its pipe closes
        end(self._process)


def _serve(pipe: Connection, recipe: Recipe) -> None:
    """Run the server: load the model, then fork workers and report exit codes until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    set_threads(1)
    try:
        model = recipe.build_to_fork()
    except Exception as error:  # noqa: BLE001 - the parent raises it
        pipe.send(portable(error))
        return
    gc.collect()
    gc.freeze()  # a later collection would write into the memory that workers share
    pipe.send(None)
    running: set[int] = set()
    try:
        while True:
            request, value = pipe.recv()
            if request == "exit code":
                pipe.send(os.waitstatus_to_exitcode(os.waitpid(value, 0)[1]))
                running.discard(value)
            else:
                pid = _fork(pipe, model, value)
                running.add(pid)
                pipe.send(pid)
    except EOFError:  # the parent has ended or stopped the server, so results are not read
        for pid in running:
            os.kill(pid, signal.SIGKILL)


def _fork(pipe: Connection, model: object, cores: tuple[int, ...]) -> int:
    """Fork a worker and return its process id.

    The handle of the worker's own pipe is received through ``pipe``.
    """
    handle = reduction.recv_handle(pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            pipe.close()
            pin(cores)
            live(Connection(handle), lambda: model)
            code = 0
        except SystemExit as exiting:  # a signal ends the worker
            code = exiting.code if isinstance(exiting.code, int) else 0
        except BaseException:  # noqa: BLE001 - the forked copy must not continue the server's code
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(handle)
    return pid
