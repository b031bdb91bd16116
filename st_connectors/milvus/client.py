"""Ways into Milvus: a folder of this machine by Milvus Lite, and servers over gRPC; with or without TLS, or by a client handed in."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pymilvus import MilvusClient

from st_connectors.errors import StoreError, Unavailable, Unsupported
from st_connectors.milvus import faults
from st_connectors.milvus.layout import Layout
from st_connectors.plugin import Address

__all__ = ["Opened", "border", "exists", "open_client"]

T = TypeVar("T")

TOKEN = "ST_MILVUS_TOKEN"  # noqa: S105  # the name of the variable
TIMEOUT = 30
"""Seconds."""
OPTIONS = ("timeout", "index", "lists", "consistency")
CONSISTENCY = {"strong": "Strong", "session": "Session", "bounded": "Bounded", "eventually": "Eventually"}
INDEXES = {"flat": "FLAT", "hnsw": "HNSW"}
LISTS = {"arrays": False, "text": True}
OLDEST = (2, 5)
"""Templates, the BM25 function and what indexes are told here came with it."""
LITE = "milvus_lite"
DATABASE = "milvus.db"
NO_RETRIES = {"grpc.enable_retries": 0}


class Deadline(float):
    """Seconds that a call may take, and that are over once it has failed.

    pymilvus repeats failed calls for as long as their timeout, or 75 times where they have none; it asks ``elapsed >= timeout`` after each failure.
    """

    def __le__(self, elapsed: object) -> bool:
        """Always: repeating is the retrying wrapper's."""
        return True


@dataclass(slots=True, eq=False)
class Opened:
    """A client and what there is to know of it."""

    client: Any
    name: str
    """The address's scheme, for messages."""
    lite: bool = False
    folder: str | None = None
    owned: bool = True
    layout: Layout = field(default_factory=Layout)
    """That of collections that are made."""
    consistency: str = "Session"
    closed: bool = False
    unflushed: dict[str, int] = field(default_factory=dict)
    """Rows written to each collection of Milvus Lite since they were last brought into a segment."""
    timeout: int = TIMEOUT
    writing: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """Held while something is written: two threads that begin a log of Milvus Lite 3.2 at once open its file twice, and one of them is cut off."""

    @property
    def once(self) -> dict[str, Any]:
        """The options of every call: it ends in time and is not repeated."""
        return {"timeout": Deadline(self.timeout)}

    def close(self) -> None:
        """Give back what is held; the last store of this process closes a folder."""
        if self.closed or not self.owned:
            return
        self.closed = True
        if self.folder is None:
            self.client.close()
            return
        with _LOCK:
            running = _FOLDERS[self.folder]
            running.holders -= 1
            if running.holders == 0:
                del _FOLDERS[self.folder]
                _stop(running, self.folder)


@dataclass(slots=True, eq=False)
class _Running:
    """Milvus Lite on a folder, for all stores of this process that are open there."""

    client: Any
    started: bool
    """Whether it was started for us, and is ours to stop."""
    holders: int = 0
    unflushed: dict[str, int] = field(default_factory=dict)
    writing: AbstractContextManager[Any] = field(default_factory=threading.RLock)


_FOLDERS: dict[str, _Running] = {}
_LOCK = threading.RLock()


def open_client(address: Address, client: object | None) -> Opened:
    """The client for an address, or what there is to know of one handed in. Raises ValueError for unknown options, ``Unavailable`` where nobody answers."""
    options = _options(address)
    if client is not None:
        return _handed_in(address, client, options)
    return _lite(address, options) if "lite" in address.variants else _remote(address, options)


def _options(address: Address) -> dict[str, Any]:
    if unknown := address.options.keys() - set(OPTIONS):
        raise ValueError(f"{address.scheme} has no option {min(unknown)!r}; there are {', '.join(OPTIONS)}")
    lite = "lite" in address.variants
    return {
        "timeout": _timeout(address),
        "consistency": _chosen(address, "consistency", CONSISTENCY, "session"),
        "layout": Layout(
            _chosen(address, "index", INDEXES, "flat" if lite else "hnsw"),
            _chosen(address, "lists", LISTS, "text" if lite else "arrays"),
        ),
    }


def _chosen(address: Address, option: str, known: Mapping[str, T], default: str) -> T:
    value = address.options.get(option, default)
    if value not in known:
        raise ValueError(f"{option} is one of {', '.join(known)}, not {value!r}")
    return known[value]


def _timeout(address: Address) -> int:
    given = address.options.get("timeout", str(TIMEOUT))
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"timeout is a whole number of seconds above 0, not {given!r}")
    return int(given)


def _handed_in(address: Address, client: object, options: Mapping[str, Any]) -> Opened:
    if not isinstance(client, MilvusClient):
        raise TypeError(f"{address.scheme} takes a pymilvus.MilvusClient, not {type(client).__name__}")
    lite = _is_lite(client, address.scheme)
    return Opened(
        client, address.scheme, lite=lite, owned=False, writing=threading.RLock() if lite else nullcontext(), **options
    )


def _is_lite(client: Any, name: str) -> bool:
    """Whether Milvus Lite answers; raises ``Unsupported`` for servers that are too old."""
    with border(name, "connect"):
        version = str(client.get_server_version(timeout=Deadline(TIMEOUT)))
    if version.startswith(LITE):
        return True
    parts = version.lstrip("v").split(".")
    numbers = tuple(int(part) for part in parts[:2] if part.isdecimal())
    if len(numbers) == 2 and numbers < OLDEST:
        told = f"the server is Milvus {version}; 2.5 or newer is needed"
        raise Unsupported(told, store=name, operation="connect")
    return False


def _remote(address: Address, options: Mapping[str, Any]) -> Opened:
    if address.host is None:
        raise ValueError(
            f"{address.scheme} is a server: write {address.scheme}://HOST:PORT, or for a file milvus+lite:PATH"
        )
    scheme = "https" if "https" in address.variants else "http"
    host = f"[{address.host}]" if ":" in (address.host or "") else address.host
    with border(address.scheme, "connect"):
        client = MilvusClient(
            uri=f"{scheme}://{host}:{address.port or 19530}",
            token=os.environ.get(TOKEN, ""),
            db_name=address.path.strip("/"),
            timeout=options["timeout"],
            # A connection of our own: pymilvus shares one by address, and with it the options of whoever came first.
            dedicated=True,
            grpc_options=NO_RETRIES,
        )
    try:
        _is_lite(client, address.scheme)
    except StoreError:
        client.close()
        raise
    return Opened(client, address.scheme, **options)


def folder_of(address: Address) -> str:
    """Where Milvus Lite keeps its files: ``PATH/milvus.db``, or PATH itself where it ends so."""
    path = Path(address.path or ".").resolve()
    return str(path if path.suffix == ".db" else path / DATABASE)


def exists(address: Address) -> bool:
    """Whether there is anything at the address of Milvus Lite."""
    return Path(folder_of(address)).exists()


def _lite(address: Address, options: Mapping[str, Any]) -> Opened:
    folder = folder_of(address)
    with _LOCK:
        if folder not in _FOLDERS:
            mine = not _is_running(folder)
            _FOLDERS[folder] = _Running(_started(folder), mine)
        running = _FOLDERS[folder]
        running.holders += 1
    return Opened(
        running.client,
        address.scheme,
        lite=True,
        folder=folder,
        unflushed=running.unflushed,
        writing=running.writing,
        **options,
    )


def _started(folder: str) -> Any:
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with _quiet() as heard, border("milvus+lite", "connect"):
        try:
            return MilvusClient(folder, dedicated=True, grpc_options=NO_RETRIES)
        except Exception as error:
            if "Open local milvus failed" not in str(error):
                raise
            why = f"{type(heard[0]).__name__}: {heard[0]}" if heard else str(error)
            told = f"the folder {folder} cannot be opened; one process at a time can ({why[: faults.LONGEST]})"
            raise Unavailable(told, store="milvus+lite", operation="connect") from error


def _is_running(folder: str) -> bool:
    """Whether somebody else in this process has the folder open."""
    from milvus_lite.server_manager import server_manager_instance

    return folder in server_manager_instance._servers  # noqa: SLF001  # it does not say otherwise


def _stop(running: _Running, folder: str) -> None:
    from milvus_lite.server_manager import server_manager_instance

    running.client.close()
    if running.started:
        server_manager_instance.release_server(folder)


@contextmanager
def border(store: str, operation: str) -> Iterator[None]:
    """Turn the driver's errors into ours, once, and keep it from printing them too."""
    try:
        with _quiet():
            yield
    except StoreError:
        raise
    except Exception as error:
        ours = faults.from_client(error, store=store, operation=operation)
        if ours is None:
            raise
        raise ours from error


_HEARD: ContextVar[list[BaseException] | None] = ContextVar("heard", default=None)


class _Ours(logging.Filter):
    """Keeps back what is logged during a call of ours: pymilvus prints every error with its traceback before it raises it."""

    def filter(self, record: logging.LogRecord) -> bool:
        heard = _HEARD.get()
        if heard is not None and record.exc_info and record.exc_info[1] is not None:
            heard.append(record.exc_info[1])
        return heard is None


_FILTER = _Ours()
for _name in ("pymilvus.decorators", "milvus_lite.server_manager"):
    logging.getLogger(_name).addFilter(_FILTER)


@contextmanager
def _quiet() -> Iterator[list[BaseException]]:
    """Errors that the driver logs in this context; an outer one hears what an inner one does."""
    outer = _HEARD.get()
    heard: list[BaseException] = [] if outer is None else outer
    token = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(token)
