"""Connect to Milvus: to Milvus Lite in a folder, to a server over gRPC, or with a client object of the caller."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pymilvus import MilvusClient

from st_connectors.disk import check_space, has_space
from st_connectors.errors import StoreError
from st_connectors.milvus import embedded, server
from st_connectors.milvus.embedded import NO_RETRIES, Folder
from st_connectors.milvus.faults import translate_errors
from st_connectors.milvus.layout import StorageOptions
from st_connectors.plugin import Address

__all__ = ["Connection", "open_client"]

T = TypeVar("T")

TOKEN = "ST_MILVUS_TOKEN"  # noqa: S105  # the name of the variable
TIMEOUT = 30
"""The default timeout of a call to a server, in seconds."""
EMBEDDED_TIMEOUT = 600
"""The same for Milvus Lite, which reads every field of every row that a counted filter passes: on a busy machine,
counting 42,000 rows took 15 s, and there is no network on which an answer could be lost."""
OPTIONS = ("timeout", "index", "lists", "consistency")
CONSISTENCY = {"strong": "Strong", "session": "Session", "bounded": "Bounded", "eventually": "Eventually"}
INDEXES = {"flat": "FLAT", "hnsw": "HNSW"}
LISTS = {"arrays": False, "text": True}


class Deadline(float):
    """A timeout in seconds for a call that pymilvus must not repeat.

    pymilvus repeats a failed call until its timeout, or 75 times without a timeout. After each failure it evaluates
    ``elapsed >= timeout``, which is always true for a deadline.
    """

    def __le__(self, elapsed: object) -> bool:
        """Return True, so that pymilvus does not repeat the call: the retry layer does that."""
        return True


@dataclass(slots=True, eq=False, weakref_slot=True)
class Connection:
    """A client and the options of its address.

    ``name`` is the scheme of the address, used in messages. ``lite`` is true for Milvus Lite. ``owned`` is false if the
    caller passed the client, which is then not closed. ``folder`` is the folder of Milvus Lite if this package opened
    it.
    """

    client: Any
    name: str
    lite: bool = False
    owned: bool = True
    folder: Folder | None = None
    storage: StorageOptions = field(default_factory=StorageOptions)
    """The storage options of collections that are created with this connection."""
    consistency: str = "Session"
    timeout: int = TIMEOUT
    unflushed: dict[str, int] = field(default_factory=dict)
    """The number of rows written to Milvus Lite since the last flush to a segment, by collection."""
    write_lock: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """A lock that is acquired for writes: if two threads create a log of Milvus Lite 3.2 at the same time, the file is
    opened twice and one write is lost."""
    is_closed: bool = False
    lease: weakref.finalize[..., Connection] | None = field(default=None, init=False)
    """What releases the folder if this object is deleted without ``close``."""

    def __post_init__(self) -> None:
        self.lease = None if self.folder is None else embedded.release_when_deleted(self, self.folder)

    @property
    def call_options(self) -> dict[str, Any]:
        """The options of every call: a timeout without repetition."""
        return {"timeout": Deadline(self.timeout)}

    def check_space(self, size: int, operation: str) -> None:
        """Raise ``Permanent`` if the disk of Milvus Lite has no space for ``size`` bytes of records."""
        if self.folder is not None:
            check_space(Path(self.folder.path), size, store=self.name, operation=operation)

    def has_space(self) -> bool:
        """Return whether the disk of Milvus Lite has space for a flush."""
        return self.folder is None or has_space(Path(self.folder.path), 0)

    def close(self) -> None:
        """Close the client, or release the folder of Milvus Lite; do nothing for a client of the caller.

        A second call does nothing.
        """
        if self.is_closed or not self.owned:
            return
        self.is_closed = True
        if self.folder is None:
            self.client.close()
        elif self.lease is not None and self.lease.detach():
            self.folder.release()


def open_client(address: Address, client: object | None) -> Connection:
    """Connect to an address, or use the client passed by the caller.

    Raises ValueError for unknown options and ``Unavailable`` if no server answers.
    """
    options = _parse_options(address)
    if client is not None:
        return _use_client(address, client, options)
    return _open_embedded(address, options) if "lite" in address.variants else _open_server(address, options)


def _parse_options(address: Address) -> dict[str, Any]:
    if unknown := address.options.keys() - set(OPTIONS):
        expected = ", ".join(OPTIONS)
        raise ValueError(f"unknown option {min(unknown)!r} of {address.scheme}; expected one of {expected}")
    lite = "lite" in address.variants
    return {
        "timeout": _parse_timeout(address, EMBEDDED_TIMEOUT if lite else TIMEOUT),
        "consistency": _parse_choice(address, "consistency", CONSISTENCY, "session"),
        "storage": StorageOptions(
            _parse_choice(address, "index", INDEXES, "flat" if lite else "hnsw"),
            _parse_choice(address, "lists", LISTS, "text" if lite else "arrays"),
        ),
    }


def _parse_choice(address: Address, option: str, choices: Mapping[str, T], default: str) -> T:
    value = address.options.get(option, default)
    if value not in choices:
        raise ValueError(f"unknown {option} {value!r}; expected one of {', '.join(choices)}")
    return choices[value]


def _parse_timeout(address: Address, default: int) -> int:
    value = address.options.get("timeout", str(default))
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(f"timeout: expected a whole number of seconds above 0, got {value!r}")
    return int(value)


def _use_client(address: Address, client: object, options: Mapping[str, Any]) -> Connection:
    if not isinstance(client, MilvusClient):
        raise TypeError(f"{address.scheme}: expected a pymilvus.MilvusClient, got {type(client).__name__}")
    lite = _is_embedded(client, address.scheme)
    lock = threading.RLock() if lite else nullcontext()
    return Connection(client, address.scheme, lite=lite, owned=False, write_lock=lock, **options)


def _open_embedded(address: Address, options: Mapping[str, Any]) -> Connection:
    folder = embedded.acquire(address)
    return Connection(
        folder.client,
        address.scheme,
        lite=True,
        folder=folder,
        unflushed=folder.unflushed,
        write_lock=folder.write_lock,
        **options,
    )


def _open_server(address: Address, options: Mapping[str, Any]) -> Connection:
    scheme = "https" if "https" in address.variants else "http"
    host = f"[{address.host}]" if ":" in (address.host or "") else address.host
    with translate_errors(address.scheme, "connect"):
        client = MilvusClient(
            uri=f"{scheme}://{host}:{address.port or 19530}",
            token=os.environ.get(TOKEN, ""),
            db_name=address.path.strip("/"),
            timeout=options["timeout"],
            # Otherwise pymilvus uses one connection per address, with the options of the first client.
            dedicated=True,
            grpc_options=NO_RETRIES,
        )
    try:
        _is_embedded(client, address.scheme)
    except StoreError:
        client.close()
        raise
    return Connection(client, address.scheme, **options)


def _is_embedded(client: Any, name: str) -> bool:
    with translate_errors(name, "connect"):
        version = str(client.get_server_version(timeout=Deadline(TIMEOUT)))
    return server.is_embedded(version, store=name)
