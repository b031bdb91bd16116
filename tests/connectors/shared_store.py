"""A store that several processes share: a collection in the memory of the test, which other processes reach by TCP.

The entry point that :func:`installed` writes makes it the store ``shared``, also in the processes of an engine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import pytest

from st_connectors import registry
from st_connectors.memory import CAPABILITIES
from st_connectors.plugin import Address, Plugin
from st_connectors.schema import Schema
from st_connectors.store import Parts

KEY = b"tests"


class SharedStore:
    """The adapter: every operation is a message to the server."""

    def __init__(self, address: Address, collection: str, schema: Schema | None) -> None:
        self._connection = Client((address.host, address.port), authkey=KEY)
        self._lock = threading.Lock()
        self._send("open", collection, schema)

    @property
    def schema(self):
        return self._send("schema")

    @property
    def capabilities(self):
        return CAPABILITIES

    def create(self):
        self._send("create")

    def upsert(self, records):
        return self._send("upsert", records, os.getpid(), os.getppid())

    def delete(self, ids):
        self._send("delete", ids)

    def get(self, ids, *, parts=Parts.ALL):
        return self._send("get", ids, parts)

    def scan(self, *, where=None, parts=Parts.ALL, batch=1000):
        return iter(self._send("scan", where, parts))

    def count(self, where=None):
        return self._send("count", where)

    def refresh(self):
        self._send("refresh")

    def close(self):
        self._connection.close()

    def _send(self, name: str, *arguments: Any) -> Any:
        with self._lock:
            self._connection.send((name, arguments))
            is_error, answer = self._connection.recv()
        if is_error:
            raise answer
        return answer


@dataclass
class SharedServer:
    """The server; ``url`` is its address, and ``store`` the collection that was opened last.

    ``before`` is called before and ``after`` after the records of an ``upsert`` are stored, with the records, the id of
    the process and that of its parent; what ``before`` returns, if anything, are the rejected records. ``names`` lists
    the operations.
    """

    name: str
    before: Callable[..., Any] = lambda *_: None
    after: Callable[..., Any] = lambda *_: None
    names: list[str] = field(default_factory=list)
    store: Any = None
    writers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = Listener(("127.0.0.1", 0), authkey=KEY)
        self.url = f"shared://127.0.0.1:{self._listener.address[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError):
                if self._listener is None:
                    return
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        store: Any = None
        with connection:
            while True:
                try:
                    name, arguments = connection.recv()
                    self.names.append(name)
                    store, answer = self._answer(store, name, arguments)
                    connection.send((False, answer))
                except (EOFError, OSError):
                    return
                except Exception as error:  # noqa: BLE001 # passed on to the other process
                    connection.send((True, error))

    def _answer(self, store: Any, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        match name:
            case "open":
                self.store = registry.open_store(f"memory:{self.name}", *arguments)
                return self.store, None
            case "schema":
                return store, store.schema
            case "upsert":
                records, *processes = arguments
                self.writers.append(processes[0])
                rejected = list(self.before(records, *processes) or ())
                bad = {item.position for item in rejected}
                rejected += store.upsert([each for at, each in enumerate(records) if at not in bad])
                self.after(records, *processes)
                return store, rejected
            case "get":
                return store, store.get(arguments[0], parts=arguments[1])
            case "scan":
                return store, list(store.scan(where=arguments[0], parts=arguments[1]))
            case _:
                return store, getattr(store, name)(*arguments)

    def close(self) -> None:
        listener, self._listener = self._listener, None
        listener.close()


@contextmanager
def loading(address: Address, collection: str, client: object | None) -> Iterator[None]:
    """The settings for bulk loading, which the server only notes."""
    store = SharedStore(address, collection, None)
    store._send("count", None)
    SERVERS[address.port].names.append("bulk on")
    try:
        yield
    finally:
        SERVERS[address.port].names.append("bulk off")
        store.close()


SERVERS: dict[int | None, SharedServer] = {}

PLUGIN = Plugin(
    "shared",
    None,
    {"": "a collection in the memory of a test"},
    CAPABILITIES,
    lambda address, collection, schema, client: SharedStore(address, collection, schema),  # type: ignore[arg-type,return-value]
    lambda address, client: [],
    loading=loading,
)


@contextmanager
def serving(name: str) -> Iterator[SharedServer]:
    """Serve an empty store for the duration of a ``with`` block."""
    server = SharedServer(name)
    port = int(server.url.rpartition(":")[2])
    SERVERS[port] = server
    try:
        yield server
    finally:
        if server.store is not None:
            server.store.drop()
        del SERVERS[port]
        server.close()


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Install the store for the duration of a ``with`` block, also in processes that this one starts.

    ``folder`` is empty; its entry point and modules that a test writes to it are on the path of these processes.
    """
    metadata = folder / "shared_store-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shared-store\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\nshared = shared_store:PLUGIN\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{Path(__file__).parent}")
        forget_plugins()
        yield
    forget_plugins()


def forget_plugins() -> None:
    """Find the entry points anew."""
    registry._points.cache_clear()
    registry._load.cache_clear()
