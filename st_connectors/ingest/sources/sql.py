"""The result of a query to a database, read piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from st_connectors.ingest.documents import Place
from st_connectors.ingest.sources.arrow_table import numbered_rows
from st_connectors.ingest.sources.plain_values import read_value
from st_connectors.ingest.sources.rows import Read, Reading, check_columns, read_row
from st_connectors.ingest.sources.skip import Skip
from st_connectors.ingest.sources.sql_drivers import Driver, find_driver
from st_connectors.ingest.sources.sql_url import SqlUrl, parse_sql_url
from st_connectors.schema import FilterKind

__all__ = ["SqlSource", "read_sql", "sql_source"]

ROWS = 256
"""The number of rows that are fetched together."""

_Numbered: TypeAlias = tuple[int, dict[str, Any]]
"""The number of a row, from 1, and its values by column."""


def read_sql(url: str, query: str, reading: Reading | None = None) -> Read:
    """Return the documents of a query's rows, which are fetched as they are read; nulls are absent from the payload.

    ``url`` is the address of a database, such as ``sqlite:PATH`` or ``postgresql://USER@HOST/NAME``. Raises ValueError
    for an address of another form and ImportError if no driver is installed. While the documents are read, ValueError
    is raised, on one line and without a password, if the database cannot be reached, if the query fails, and if the
    result lacks the columns that ``reading`` names.
    """
    return sql_source(url, query).read(reading or Reading())


def sql_source(url: str, query: str) -> SqlSource:
    """Return a source without connecting; raise ValueError for an invalid address and ImportError without a driver."""
    parsed = parse_sql_url(url)
    return SqlSource(parsed, query, find_driver(parsed))


@dataclass(frozen=True, slots=True)
class SqlSource:
    """A query, the address of its database, and the driver."""

    url: SqlUrl
    query: str
    driver: Driver

    def read(self, reading: Reading) -> Read:
        """Yield the documents of rows, as :func:`read_sql` describes."""
        name = self.url.shown
        with self._run(reading.skip) as (columns, rows):
            check_columns(columns, reading, name)
            for number, row in rows:
                yield read_row(row, reading, Place(name, number, "row"), _convert_booleans)

    @contextmanager
    def _run(self, skip: Skip) -> Iterator[tuple[Sequence[str], Iterator[_Numbered]]]:
        """Yield the columns and the rows of the result that are not skipped."""
        module = self.driver.load()
        attempt = _Attempts(self.url, module)
        with ExitStack() as opened:
            connection = attempt(self.driver.connect, module, self.url)
            opened.callback(_quietly, connection.close)
            cursor = attempt(self.driver.cursor, connection)
            opened.callback(_quietly, self.driver.close, cursor)
            attempt(cursor.execute, self.query)
            if not cursor.description:
                raise ValueError(f"{self.url.shown}: the query returns no rows: pass a SELECT")
            columns = [str(column[0]) for column in cursor.description]
            yield columns, (_arrow_rows if self.driver.is_arrow else _rows)(cursor, columns, attempt, skip)


def _quietly(close: Callable[..., object], *arguments: Any) -> None:
    """Close something whose errors no longer matter."""
    with suppress(Exception):
        close(*arguments)


@dataclass(frozen=True, slots=True)
class _Attempts:
    """Calls of a driver, whose errors are raised on one line and without the password."""

    url: SqlUrl
    module: Any

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Any:
        kinds = [getattr(self.module, name, ValueError) for name in ("Error", "Warning")]
        try:
            return call(*arguments)
        except (*kinds, OSError, ValueError, TypeError, ArithmeticError, NotImplementedError) as error:
            message = self.url.hide(_message(error)) or type(error).__name__
        # Raised outside of the handler: the error of the driver, which may contain the password, is not its context.
        raise ValueError(f"{self.url.shown}: {message}")


def _message(error: Exception) -> str:
    """Return the message of an error, which drivers of MySQL pass after a number."""
    last = error.args[-1] if error.args else ""
    return last if isinstance(last, str) and last else str(error)


def _rows(cursor: Any, columns: Sequence[str], attempt: _Attempts, skip: Skip) -> Iterator[_Numbered]:
    """Yield the rows of a cursor that are not skipped, without nulls, with their numbers."""
    number = 0
    while rows := attempt(cursor.fetchmany, ROWS):
        skipped = skip.up_to(len(rows))
        for at, values in enumerate(rows[skipped:], number + skipped + 1):
            named = zip(columns, values, strict=True)
            yield at, {name: read_value(value, name) for name, value in named if value is not None}
        number += len(rows)


def _arrow_rows(cursor: Any, _: Sequence[str], attempt: _Attempts, skip: Skip) -> Iterator[_Numbered]:
    batches = attempt(cursor.fetch_record_batch)
    return numbered_rows(iter(lambda: attempt(next, batches, None), None), skip)


def _convert_booleans(row: Mapping[str, Any], reading: Reading) -> Mapping[str, Any]:
    """Return a row in which 0 and 1 in filterable columns of kind bool are booleans, which SQLite and MySQL lack."""
    names = [name for name, kind in reading.filterable.items() if kind is FilterKind.BOOL and row.get(name) in (0, 1)]
    return {**row, **{name: bool(row[name]) for name in names}} if names else row
