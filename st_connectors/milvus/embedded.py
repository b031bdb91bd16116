"""Run Milvus Lite in a folder, with one instance for all stores of this process."""

from __future__ import annotations

import threading
import weakref
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pymilvus import MilvusClient

from st_connectors.disk import explain_unwritable
from st_connectors.errors import Permanent, Unavailable
from st_connectors.milvus import faults
from st_connectors.plugin import Address

__all__ = ["NO_RETRIES", "Folder", "acquire", "exists", "path_of", "release_when_deleted"]

T = TypeVar("T")

DATABASE = "milvus.db"
NO_RETRIES = {"grpc.enable_retries": 0}
STOPPING = 10
"""The maximum time in seconds for which the deletion of a store waits until Milvus Lite has stopped."""


@dataclass(slots=True, eq=False)
class Folder:
    """Milvus Lite, running in one folder; ``users`` counts the stores that use it."""

    path: str
    client: Any
    is_ours: bool
    """Whether this package started Milvus Lite and therefore stops it."""
    users: int = 0
    unflushed: dict[str, int] = field(default_factory=dict)
    """The number of rows written since the last flush, by collection."""
    write_lock: AbstractContextManager[Any] = field(default_factory=threading.RLock)

    def release(self) -> None:
        """Release Milvus Lite for one store; stop it when the last store releases it."""
        with _LOCK:
            self.users -= 1
            if self.users == 0:
                del _FOLDERS[self.path]
                _stop(self)


def release_when_deleted(user: T, folder: Folder) -> weakref.finalize[..., T]:
    """Release Milvus Lite when ``user`` is deleted; return the finalizer, to be detached if the folder is released."""
    lease = weakref.finalize(user, _release_in_thread, folder)
    lease.atexit = False  # Milvus Lite stops itself when the process ends
    return lease


def _release_in_thread(folder: Folder) -> None:
    """Release Milvus Lite in another thread.

    The garbage collector may run in a thread of Milvus Lite, which has locks that stopping needs.
    """
    thread = threading.Thread(target=folder.release)
    with suppress(RuntimeError):  # raised while Python ends, when no thread can start
        thread.start()
        thread.join(timeout=STOPPING)


_FOLDERS: dict[str, Folder] = {}
_LOCK = threading.RLock()


def path_of(address: Address) -> str:
    """Return the path of the files of Milvus Lite: ``PATH/milvus.db``, or PATH itself if it ends in ``.db``."""
    path = Path(address.path).resolve()
    return str(path if path.suffix == ".db" else path / DATABASE)


def exists(address: Address) -> bool:
    """Return whether files of Milvus Lite exist at an address."""
    return Path(path_of(address)).exists()


def acquire(address: Address) -> Folder:
    """Return Milvus Lite in the folder of an address, started if necessary.

    The caller must call ``release`` once.
    """
    path = path_of(address)
    with _LOCK:
        if path not in _FOLDERS:
            is_ours = not _is_running(path)
            _FOLDERS[path] = Folder(path, _start(path), is_ours)
        folder = _FOLDERS[path]
        folder.users += 1
    return folder


def _start(path: str) -> Any:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the folder {Path(path).parent} cannot be used: {error}"
        raise Permanent(message, store="milvus+lite", operation="connect") from error
    with faults.capture_logs() as logged, faults.translate_errors("milvus+lite", "connect"):
        try:
            return MilvusClient(path, dedicated=True, grpc_options=NO_RETRIES)
        except Exception as error:
            if "Open local milvus failed" not in str(error):
                raise
            unwritable = explain_unwritable(Path(path), store="milvus+lite", operation="connect")
            if unwritable is not None:
                raise unwritable from error
            reason = f"{type(logged[0]).__name__}: {logged[0]}" if logged else str(error)
            hint = "one process at a time can open it"
            message = f"the folder {path} cannot be opened; {hint} ({reason[: faults.MAX_MESSAGE]})"
            raise Unavailable(message, store="milvus+lite", operation="connect") from error


def _is_running(path: str) -> bool:
    """Return whether other code in this process has already opened the folder."""
    from milvus_lite.server_manager import server_manager_instance

    return path in server_manager_instance._servers  # noqa: SLF001  # milvus-lite 3.2 has no public way to ask


def _stop(folder: Folder) -> None:
    from milvus_lite.server_manager import server_manager_instance

    folder.client.close()
    if folder.is_ours:
        server_manager_instance.release_server(folder.path)
