"""Locks on files that only one process may use; the lock of a process that has died does not block."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

__all__ = ["FileInUseError", "locked"]


class FileInUseError(RuntimeError):
    """Another process, or another ingest of this process, uses a file."""


@contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Lock a file for the duration of a ``with`` block; raise FileInUseError with ``message`` if it is in use.

    The lock is a file in the system's folder for temporary files, so that it holds for the processes of one user on one
    machine. It contains the number of the process. The operating system releases the lock when the process ends, in
    whatever way.
    """
    from filelock import FileLock, Timeout

    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir(), f"st-connectors-{user}")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{xxhash.xxh3_128_hexdigest(str(path.resolve()).encode())}.lock"
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FileInUseError(f"{message}{_holder(file)}") from error
    try:
        file.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def _holder(file: Path) -> str:
    """Return the number of the process that holds a lock, for a message; "" if it is unknown."""
    try:
        number = file.read_text()
    except OSError:  # Windows does not let others read a locked file
        return ""
    return f" (process {number})" if number else ""
