"""A process that holds a loaded model and forks workers off itself, so that its weights are in memory once.

It is spawned, so that it inherits none of the caller's threads, and it computes with one thread: a child whose parent
has run OpenMP threads waits for them forever (GNU libgomp, which torch is built with). A child may have any number of
threads. Linux only, since workers are watched through process descriptors (``pidfd_open``), which never refer to
another process that got the same number.
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
"""The exit code reported for a worker whose server, its parent, is gone.

Multiprocessing's own fork server uses the same.
"""


def can_fork() -> bool:
    """Return whether processes can be forked and watched here."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system, an older kernel
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
        """Return whether the process runs."""
        return not connection.wait([self.sentinel], 0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process ends, and read its exit code."""
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
    """The parent's handle of the server process; for one thread at a time."""

    def __init__(self, recipe: Recipe) -> None:
        """Start the process and wait until its model is loaded.

        Raises the errors of loading, and RuntimeError with the exit code where the process dies.
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
        """Fork a worker that runs on some cores; return it and the pipe to it.

        Raises OSError or EOFError where the server is gone.
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
        """End the server, and with it the forked workers that still run."""
        self._pipe.close()  # which ends it
        end(self._process)


def _serve(pipe: Connection, recipe: Recipe) -> None:
    """Run the server: load the model, then fork workers and report exit codes until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
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
    except EOFError:  # the parent is gone or has stopped the server: nobody reads the workers' results
        for pid in running:
            os.kill(pid, signal.SIGKILL)


def _fork(pipe: Connection, model: object, cores: tuple[int, ...]) -> int:
    """Fork a worker, which answers through the pipe whose handle follows in the message; return its process id."""
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
        except SystemExit as exiting:  # told to end by a signal
            code = exiting.code if isinstance(exiting.code, int) else 0
        except BaseException:  # noqa: BLE001 - none of the server's code may run in its copy
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(handle)
    return pid
