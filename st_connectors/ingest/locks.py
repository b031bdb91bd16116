"""Locks on files that only one process may use; the lock of a process that has died does not block."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

__all__ = ["FileInUseError", "LockError", "locked"]


class FileInUseError(RuntimeError):
    """Another process, or another ingest of this process, uses a file."""


class LockError(RuntimeError):
    """The folder of locks cannot be used."""


@contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Lock a file for the duration of a ``with`` block; raise FileInUseError with ``message`` if it is in use.

    Raises LockError if the folder of locks belongs to another user or cannot be written. The lock is a file in the
    system's folder for temporary files, so that it holds for the processes of one user on one machine. It contains the
    number of the process. The operating system releases the lock when the process ends, in whatever way.
    """
    from filelock import FileLock, Timeout

    folder = _lock_folder()
    file = folder / f"{xxhash.xxh3_128_hexdigest(str(path.resolve()).encode())}.lock"
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FileInUseError(f"{message}{_holder(file)}") from error
    except OSError as error:
        raise _unusable(folder, f"cannot be written: {error.strerror}") from error
    try:
        with suppress(OSError):  # the number is for messages only
            file.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def _lock_folder() -> Path:
    """Return the folder of this user's locks, which is created if it does not exist."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir(), f"st-connectors-{user}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise _unusable(folder, f"cannot be created: {error.strerror}") from error
    # Others could replace the locks, or make this process write elsewhere by links.
    if hasattr(os, "getuid") and owner != user:
        raise _unusable(folder, f"belongs to another user (number {owner})")
    return folder


def _unusable(folder: Path, reason: str) -> LockError:
    return LockError(f"the folder of locks {folder} {reason}; remove it, or name another place by TMPDIR")


def _holder(file: Path) -> str:
    """Return the number of the process that holds a lock, for a message; "" if it is unknown."""
    try:
        number = file.read_text()
    except OSError:  # Windows does not let others read a locked file
        return ""
    return f" (process {number})" if number else ""
