"""Drivers of databases: how each connects, without the right to write where it can, and returns rows piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from st_connectors.ingest.sources.plain_values import Unreadable
from st_connectors.ingest.sources.sql_url import EXPECTED, IN_MEMORY, SqlUrl
from st_core.install import package_command

__all__ = ["Driver", "find_driver"]

SERVER_PATIENCE_S = 24 * 3600
"""How long a MySQL server waits while documents are encoded; its default is a minute."""


def _cursor(connection: Any) -> Any:
    return connection.cursor()


def _close(cursor: Any) -> None:
    cursor.close()


@dataclass(frozen=True, slots=True)
class Driver:
    """A package that connects to a kind of database.

    ``connect`` receives the module and the address and returns a connection, and ``cursor`` returns a cursor of it that
    does not hold the whole result. ``close`` closes the cursor without reading the rest. An ``is_arrow`` cursor returns
    record batches.
    """

    module: str
    packages: tuple[str, ...]
    connect: Callable[[Any, SqlUrl], Any]
    cursor: Callable[[Any], Any] = _cursor
    close: Callable[[Any], None] = _close
    is_arrow: bool = False

    @property
    def name(self) -> str:
        """The name after the ``+`` of an address."""
        return "adbc" if self.is_arrow else self.module.partition(".")[0]

    @property
    def is_installed(self) -> bool:
        """Whether the packages can be imported."""
        needed = (self.module, "pyarrow") if self.is_arrow else (self.module,)
        return all(_has_module(name) for name in needed)

    def load(self) -> Any:
        """Import the module."""
        return import_module(self.module)


def find_driver(url: SqlUrl) -> Driver:
    """Return the driver that an address names, or the first that is installed.

    Raises ValueError for a database or a driver that is not known, and ImportError with the command if none is
    installed.
    """
    drivers: list[Driver] = [*_DRIVERS.get(url.scheme, ()), _adbc(url.scheme)]
    if not url.driver and url.scheme not in _DRIVERS:
        raise ValueError(f"unknown database {url.scheme!r}: {EXPECTED}, or NAME+adbc:URI for a driver of ADBC")
    named = [driver for driver in drivers if url.driver in ("", driver.name)]
    if not named:
        names = ", ".join(driver.name for driver in drivers)
        raise ValueError(f"unknown driver {url.driver!r} for {url.scheme}; expected one of {names}")
    installed = [driver for driver in named if driver.is_installed]
    if installed:
        return installed[0]
    raise ImportError(f"reading {url.shown} needs {_alternatives(named)}: {package_command(named[0].packages)}")


def _alternatives(drivers: list[Driver]) -> str:
    names = [" and ".join(driver.packages) for driver in drivers]
    return f"{names[0]} (or {', or '.join(names[1:])})" if names[1:] else names[0]


def _has_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _connect_sqlite(module: Any, url: SqlUrl) -> Any:
    # Closed by another thread if an asynchronous ingest was cancelled.
    connection = module.connect(_read_only_uri(url), uri=True, check_same_thread=False)
    connection.text_factory = _text_or_bytes
    return connection


def _read_only_uri(url: SqlUrl) -> str:
    """Return the address by which SQLite opens a file for reading; raise ValueError if there is none."""
    if not url.path:
        raise ValueError("expected sqlite:PATH")
    return f"file:{quote(str(_existing(url.path).absolute()))}?mode=ro"


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise ValueError("no such file")
    return Path(path)


def _text_or_bytes(raw: bytes) -> str | bytes:
    """Return a text, or its bytes if it is not UTF-8, so that only its row is refused."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _connect_duckdb(module: Any, url: SqlUrl) -> Any:
    """Open a file for reading, or a database in memory, whose queries read other files."""
    if url.path in IN_MEMORY:
        return module.connect(":memory:")
    return module.connect(str(_existing(url.path)), read_only=True)


def _connect_psycopg(module: Any, url: SqlUrl) -> Any:
    connection = module.connect(url.uri())
    connection.read_only = True
    for name, loader in _moment_loaders().items():
        connection.adapters.register_loader(name, loader)
    return connection


def _moment_loaders() -> dict[str, type]:
    """Return loaders of dates and times for which a value that Python does not have, such as infinity, is no error."""
    from psycopg import DataError
    from psycopg.types import datetime as loaders

    def lenient(base: Any) -> type:
        class Lenient(base):  # type: ignore[misc]  # a class of the caller's choice
            def load(self, data: Any) -> Any:
                try:
                    return super().load(data)
                except DataError as error:
                    return Unreadable(str(error))

        return Lenient

    names = {"date": "Date", "timestamp": "Timestamp", "timestamptz": "Timestamptz", "interval": "Interval"}
    return {name: lenient(getattr(loaders, f"{prefix}Loader")) for name, prefix in names.items()}


def _server_cursor(connection: Any) -> Any:
    """Return a cursor of the server, which sends the rows that are fetched."""
    return connection.cursor(name="st_connectors")


def _connect_mysql(module: Any, url: SqlUrl) -> Any:
    place = urlsplit(url.uri(has_user=False))
    options = {name: int(value) if value.isdecimal() else value for name, value in parse_qsl(place.query)}
    login = {"user": url.user or None, "password": url.password, "database": unquote(place.path[1:]) or None}
    connection = module.connect(host=place.hostname or "localhost", port=place.port or 3306, **login, **options)
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION net_write_timeout = {SERVER_PATIENCE_S}")
        cursor.execute("START TRANSACTION READ ONLY")
    return connection


def _unbuffered_cursor(connection: Any) -> Any:
    from pymysql.cursors import SSCursor

    return connection.cursor(SSCursor)


def _abandon(cursor: Any) -> None:
    """Forget the rest of the result, all of which PyMySQL would read to close the cursor; the connection ends too."""
    result, cursor.connection = cursor._result, None  # noqa: SLF001  # there is no other way
    if result is not None:
        result.unbuffered_active = False


def _connect_adbc(module: Any, url: SqlUrl) -> Any:
    if url.scheme == "sqlite":
        return module.connect(_read_only_uri(url))
    if url.scheme == "duckdb":
        return module.connect(":memory:" if url.path in IN_MEMORY else str(_existing(url.path)))
    if url.scheme == "flightsql":
        login = {"username": url.user, "password": url.password}
        return module.connect(url.uri(has_user=False), db_kwargs={name: text for name, text in login.items() if text})
    connection = module.connect(url.uri())
    if url.scheme == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
    return connection


def _adbc(scheme: str) -> Driver:
    """Return the ADBC driver of a database."""
    package = "duckdb" if scheme == "duckdb" else f"adbc-driver-{scheme}"
    return Driver(f"adbc_driver_{scheme}.dbapi", (package, "pyarrow"), _connect_adbc, is_arrow=True)


_DRIVERS: Mapping[str, tuple[Driver, ...]] = {
    "sqlite": (Driver("sqlite3", (), _connect_sqlite),),
    "duckdb": (Driver("duckdb", ("duckdb",), _connect_duckdb),),
    "postgresql": (Driver("psycopg", ("psycopg[binary]",), _connect_psycopg, _server_cursor),),
    "mysql": (Driver("pymysql", ("pymysql",), _connect_mysql, _unbuffered_cursor, _abandon),),
}
