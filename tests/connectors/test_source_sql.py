"""Results of queries: values by their types, read piece by piece and without writing, and passwords never shown."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import sqlite3
import traceback
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.ingest import DocumentError, IngestFailed
from st_connectors.ingest.sources import (
    Format,
    Notes,
    Reading,
    read_path,
    read_sql,
    read_stream,
    sql_drivers,
    sql_source,
)
from st_connectors.ingest.sources.plain_values import Unreadable
from st_connectors.ingest.sources.sql_url import parse_sql_url
from st_connectors.schema import FilterKind
from st_core.install import package_command

SECRET = "s3cr@t/of:the test"
QUOTED = "s3cr%40t%2Fof%3Athe%20test"


def shown(items) -> list[object]:
    """Documents as (id, payload), refusals as their text."""
    return [str(item) if isinstance(item, DocumentError) else (item.id, dict(item.payload)) for item in items]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with a table of books, one of which has values that cannot be read."""
    path = tmp_path / "it's 100% #1?.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE books (isbn INTEGER, title TEXT, price DECIMAL, done BOOLEAN, raw BLOB, at TIMESTAMP)"
        )
        rows = [
            (1, "red", 1.5, True, "grün".encode(), "2020-01-31 08:00:00"),
            (2, "green", 2, False, None, None),
            (3, "blue", None, None, b"\xff", None),
        ]
        connection.executemany("INSERT INTO books VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO books VALUES (4, CAST(x'ff41' AS TEXT), NULL, NULL, NULL, NULL)")
        connection.commit()
    return path


@pytest.fixture(params=["sqlite", "sqlite+adbc"])
def url(request: pytest.FixtureRequest, database: Path) -> str:
    """The address of the books, by each driver."""
    if request.param == "sqlite+adbc":
        pytest.importorskip("adbc_driver_sqlite", reason="another driver of SQLite")
        pytest.importorskip("pyarrow", reason="ADBC returns Arrow")
    return f"{request.param}:{database}"


def test_rows_are_documents_with_values_by_their_types(url):
    """Null is absent, bytes are texts, and a value that is no text refuses its row only; alike with each driver."""
    reading = Reading("isbn", ("title",), {"done": FilterKind.BOOL})

    first, second, third, fourth = shown(read_sql(url, "SELECT * FROM books ORDER BY isbn", reading))

    payload = {"price": 1.5, "done": True, "raw": "grün", "at": "2020-01-31 08:00:00", "text": "red"}
    assert first == ("1", payload)
    assert first[1]["done"] is True
    assert second == ("2", {"price": 2, "done": False, "text": "green"})
    assert third.startswith(f"{url} row 3: the value of 'raw' cannot be read: 'utf-8' codec can't decode byte 0xff")
    assert fourth.startswith(f"{url} row 4: the value of 'title' cannot be read: 'utf-8' codec can't decode byte 0xff")


def test_a_refused_row_has_its_id_and_what_was_read(url):
    """To be written to a file and mended."""
    [refusal] = read_sql(url, "SELECT isbn AS id, title AS text, raw FROM books WHERE isbn = 3")

    assert isinstance(refusal, DocumentError)
    assert (refusal.id, refusal.value) == ("3", {"id": 3, "text": "blue"})


def test_columns_are_chosen_and_composed_as_of_any_table(url):
    """And a note says what was renamed."""
    notes = Notes()
    query = "SELECT isbn AS sku, 'old' AS id, title, price FROM books WHERE isbn = 1"
    reading = Reading("sku", ("title", "price"), notes=notes)

    assert shown(read_sql(url, query, reading)) == [
        ("1", {"original_id": "old", "title": "red", "price": 1.5, "text": "red\n1.5"})
    ]
    assert notes.sentences == (f"{url}: the column 'id' is stored in the payload as 'original_id'",)


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
CELLS = st.none() | NUMBERS | st.text(CHARACTERS)
ROW = st.tuples(st.integers(0, 2**53), st.text(CHARACTERS, min_size=1), CELLS, CELLS)


@given(rows=st.lists(ROW, max_size=12))
def test_a_query_gives_the_documents_of_the_same_rows_as_json(tmp_path_factory, rows):
    """Whatever the values of its columns, which in SQLite may differ from row to row."""
    path = tmp_path_factory.mktemp("sql") / "any.db"
    names = ("id", "text", "a", "b")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id, text, a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    filled = [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in filled)

    results = shown(read_sql(f"sqlite:{path}", "SELECT * FROM t ORDER BY rowid"))

    assert results == shown(read_stream(io.BytesIO(lines.encode()), Format.JSONL, Reading(), "in"))


TYPES = (
    "SELECT 1 AS id, 'x' AS text, 1.50::DECIMAL(4, 2) AS price, 12345678901234567::DECIMAL(20, 0) AS whole, "
    "DATE '2020-01-31' AS day, TIMESTAMP '2020-01-31 08:00' AS at, TIMESTAMPTZ '2020-01-31 08:00:00+00' AS zone, "
    "TIMESTAMP_NS '2020-01-31 08:00:00.123456789' AS nano, TIME '08:30' AS clock, "
    "'12345678-1234-5678-1234-567812345678'::UUID AS key, 'gr\\xC3\\xBCn'::BLOB AS bytes, [1, NULL] AS list, "
    "{'d': DATE '2020-01-31', 'in': [{'p': 0.5::DECIMAL(3, 1)}]} AS struct, MAP {'k': 2} AS map, NULL::INT AS nothing, "
    "'a'::ENUM ('a', 'b') AS word, 0.5::FLOAT AS half, true AS flag"
)
EXPECTED = {
    "price": 1.5,
    "whole": 12345678901234567,
    "day": "2020-01-31",
    "at": "2020-01-31T08:00:00",
    "zone": "2020-01-31T08:00:00+00:00",
    "nano": "2020-01-31T08:00:00.123456",
    "clock": "08:30:00",
    "key": "12345678-1234-5678-1234-567812345678",
    "bytes": "grün",
    "list": [1, None],
    "struct": {"d": "2020-01-31", "in": [{"p": 0.5}]},
    "map": {"k": 2},
    "word": "a",
    "half": 0.5,
    "flag": True,
    "text": "x",
}


@pytest.mark.parametrize("scheme", ["duckdb", "duckdb+adbc"])
def test_values_are_those_of_a_parquet_file(tmp_path: Path, scheme):
    """Dates, decimals, UUIDs, bytes and nested values: alike with the DB-API, with ADBC, and from a file."""
    duckdb = pytest.importorskip("duckdb", reason="writes all types")
    pytest.importorskip("pyarrow", reason="reads Parquet")
    path = tmp_path / "t.parquet"
    with closing(duckdb.connect(":memory:")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY ({TYPES}) TO '{path}'")

    [(_, queried)] = shown(read_sql(f"{scheme}:", TYPES))
    [(_, stored)] = shown(read_path(path, Format.PARQUET, Reading()))

    zone = {"zone": EXPECTED["zone"]}  # DuckDB shows it in the zone of the machine
    assert queried | zone == stored | zone == EXPECTED
    assert [type(value) for value in (queried["price"], queried["whole"], queried["flag"])] == [float, int, bool]


ENDLESS = {
    "sqlite": "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, 'red' AS text FROM n",
    "duckdb": "SELECT range AS id, 'red' AS text FROM range(1, 1000000000000)",
}


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+adbc", "duckdb", "duckdb+adbc"])
def test_the_result_is_never_held_whole(database, scheme):
    """A query without an end gives its first documents, and its connection is closed when they suffice."""
    name, _, driver = scheme.partition("+")
    pytest.importorskip(f"adbc_driver_{name}" if driver else {"sqlite": "sqlite3"}.get(name, name))
    url = f"{scheme}:{database if name == 'sqlite' else ''}"

    with closing(read_sql(url, ENDLESS[name])) as documents:
        first = [document.id for document in islice(documents, 2000)]

    assert first == [str(number) for number in range(1, 2001)]


def test_nothing_is_written(url, database):
    """Whatever the statement is, the file stays as it was, and one that is missing is not created."""
    before = database.read_bytes()
    for statement in ("DELETE FROM books", "INSERT INTO books (isbn) VALUES (9) RETURNING isbn AS id, 'x' AS text"):
        with pytest.raises(ValueError, match="readonly database"):
            list(read_sql(url, statement))
    missing = database.with_name("missing.db")

    with pytest.raises(ValueError, match=r"missing\.db: no such file$"):
        list(read_sql(url.replace(database.name, missing.name), "SELECT 1"))

    assert database.read_bytes() == before
    assert not missing.exists()


def test_the_file_is_free_afterwards(database):
    """Also after an error, and after a reader that left early."""
    for query in ("SELECT isbn AS id, title AS text FROM books", "SELECT isbn FROM books", "SELECT nothing"):
        documents = read_sql(f"sqlite:{database}", query)
        with suppress(ValueError):
            next(documents)
        documents.close()
        with closing(sqlite3.connect(database, timeout=0)) as connection:
            connection.execute("BEGIN EXCLUSIVE")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT *\nFROM nowhere", "no such table: nowhere"),
        ("SELECT 1; SELECT 2", "You can only execute one statement at a time."),
        ("SELECT ? AS id", "Incorrect number of bindings supplied"),
        ("", "the query returns no rows: pass a SELECT"),
        ("SELECT isbn FROM books", "no column 'id', 'text'; the columns are isbn: pass the right ones"),
        ("SELECT 1 AS id, 'x' AS text, 2 AS id", "the header repeats 'id'; the columns are id, text, id"),
        ("SELECT abs(-9223372036854775808) AS id, 'x' AS text", "integer overflow"),
    ],
)
def test_an_error_of_the_query_is_one_line_with_the_database(database, query, message):
    """Without the error of the driver behind it."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        list(read_sql(f"sqlite:{database}", query))

    assert str(caught.value).startswith(f"sqlite:{database}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:books.db", ("sqlite", "", "books.db", "")),
        ("sqlite:///books.db", ("sqlite", "", "books.db", "")),
        ("sqlite:////srv/books.db", ("sqlite", "", "/srv/books.db", "")),
        ("duckdb:", ("duckdb", "", "", "")),
        (f"postgres://me:{QUOTED}@db:5432/shop?sslmode=require", ("postgresql", "me", "//db:5432/shop", SECRET)),
        ("postgresql+adbc://db/shop", ("postgresql", "", "//db/shop", "")),
        (f"mariadb://me:{QUOTED}@db/shop", ("mysql", "me", "//db/shop", SECRET)),
        (f"flightsql+adbc:grpc+tls://me:{QUOTED}@db:31337", ("flightsql", "me", "grpc+tls://db:31337", SECRET)),
        (f"snowflake+adbc:me:{QUOTED}@account/shop", ("snowflake", "me", "account/shop", SECRET)),
    ],
)
def test_addresses(url, expected):
    """The database, the user, the rest without options, and the password, which is shown nowhere."""
    parsed = parse_sql_url(url)

    assert (parsed.scheme, parsed.user, parsed.path.partition("?")[0], parsed.password) == expected
    assert parsed.shown == f"{expected[0]}{'+adbc' if '+adbc' in url else ''}:{expected[2]}".removesuffix(":")
    for text in (str(parsed), repr(parsed), parsed.shown):
        assert SECRET not in text
        assert QUOTED not in text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("books.db", "expected an address such as sqlite:PATH"),
        (f"host=db password={SECRET}", "expected an address such as sqlite:PATH"),
        ("sqlite:", "sqlite: expected sqlite:PATH"),
        ("sqlite://books.db", "expected sqlite:PATH, such as sqlite:books.db"),
        ("postgresql:shop", "expected postgresql://USER@HOST/NAME"),
        (f"oracle://me:{QUOTED}@db/shop", "unknown database 'oracle': expected an address"),
        ("postgresql+other://db/shop", "unknown driver 'other' for postgresql; expected one of psycopg, adbc"),
        (f"postgresql://me:{SECRET}@db/shop", "write '/', '?', '#' and '@' in a user, a password or an option as %2F"),
        (
            f"mysql://me:{QUOTED}@db:port/shop",
            "mysql://db:port/shop: Port could not be cast to integer value",
        ),
        (f"mysql://me:{QUOTED}@db/shop?colour=red", "got an unexpected keyword argument 'colour'"),
    ],
)
def test_a_wrong_address_says_what_is_expected(url, message):
    """Without showing a password in it, whatever its form."""
    if url.startswith("mysql"):
        pytest.importorskip("pymysql", reason="takes the options")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        list(read_sql(url, "SELECT 1"))

    assert not {"s3cr", "test"} & set(re.findall(r"s3cr|test", str(caught.value)))


def test_secrets_among_the_options_are_hidden():
    """As some drivers take them there."""
    url = parse_sql_url("postgresql://db/shop?sslmode=require&password=hush%20now&sslkey=/srv/key")

    assert url.hide("no 'hush now'\n at /srv/key with require") == "no '***' at *** with require"


@pytest.mark.parametrize(
    ("url", "packages"),
    [
        ("postgresql://db/shop", ["psycopg[binary]"]),
        ("postgresql+adbc://db/shop", ["adbc-driver-postgresql", "pyarrow"]),
        ("mysql://db/shop", ["pymysql"]),
        ("duckdb:", ["duckdb"]),
        ("flightsql+adbc:grpc://db:31337", ["adbc-driver-flightsql", "pyarrow"]),
    ],
)
def test_a_missing_driver_says_what_to_install(monkeypatch, url, packages):
    """Before anything is read, with the command for this installation."""
    monkeypatch.setattr(sql_drivers, "find_spec", lambda _: None)

    with pytest.raises(ImportError) as caught:
        sql_source(url, "SELECT 1")

    assert str(caught.value).startswith(f"reading {url.removesuffix(':')} needs {' and '.join(packages)}")
    assert str(caught.value).endswith(f": {package_command(packages)}")


DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}


@pytest.mark.parametrize("where", ["address", "environment"])
@pytest.mark.parametrize("scheme", DRIVERS)
def test_a_password_reaches_the_driver_and_no_message(monkeypatch, memory, encoders, scheme, where):
    """Neither the error, nor its traceback, nor the report, nor a pickle of them, although the driver tells it."""
    from st_connectors.ingest import ingest

    driver = pytest.importorskip(DRIVERS[scheme], reason=f"connects to {scheme}")
    got = []

    def connect(*arguments, **options):
        got.append(f"{arguments} {options}")
        raise driver.OperationalError(f"cannot log in with {SECRET!r}\nor {QUOTED} at db")

    monkeypatch.setattr(driver, "connect", connect)
    if where == "environment":
        monkeypatch.setenv("ST_SQL_PASSWORD", SECRET)
    account = "me" if where == "environment" else f"me:{QUOTED}"
    source = sql_source(f"{scheme}://{account}@db/shop", "SELECT 1")

    with pytest.raises(IngestFailed) as caught:
        ingest(memory("dense"), source.read(Reading()), encoders[:1])

    [arguments] = got
    assert SECRET in arguments or QUOTED in arguments
    assert str(caught.value) == f"{scheme}://db/shop: cannot log in with '***' or *** at db"
    texts = [
        repr(source),
        "".join(traceback.format_exception(caught.value)),
        json.dumps(caught.value.report.to_json()),
        repr(pickle.dumps(caught.value)),
        repr(caught.value.__cause__.__context__),
    ]
    for text in texts:
        assert SECRET not in text
        assert QUOTED not in text


class Rows:
    """A connection of PostgreSQL or MySQL that answers one query with rows, and keeps what it is asked."""

    def __init__(self, rows):
        self.asked = []
        self.description = [("id",), ("text",)]
        self._rows = rows
        self._result = None
        self.connection = self

    def cursor(self, *kind, **name):
        self.asked.append(("cursor", *(each.__name__ for each in kind), *name))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def execute(self, query):
        self.asked.append(query)

    def fetchmany(self, count):
        self.asked.append(count)
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken

    def close(self):
        self.asked.append("close")


def test_a_cursor_of_the_server_is_read_in_pieces_by_postgresql(monkeypatch):
    """In a transaction that cannot write; a date that Python does not have refuses its row only."""
    psycopg = pytest.importorskip("psycopg", reason="connects to PostgreSQL")
    connection = Rows([(number, "red") for number in range(300)])
    connection.adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    monkeypatch.setattr(psycopg, "connect", lambda _: connection)

    assert len(list(read_sql("postgresql+psycopg://db/shop", "SELECT"))) == 300

    assert connection.read_only is True
    assert connection.asked == [("cursor", "name"), "SELECT", 256, 256, 256, "close", "close"]
    for name in ("date", "timestamp", "timestamptz"):
        kind = psycopg.adapters.types[name]
        loader = connection.adapters.get_loader(kind.oid, psycopg.pq.Format.TEXT)(kind.oid, None)
        assert isinstance(loader.load(b"infinity"), Unreadable)


def test_an_unbuffered_result_is_read_in_pieces_from_mysql(monkeypatch):
    """In a transaction that cannot write, of a server that waits while documents are encoded."""
    pymysql = pytest.importorskip("pymysql", reason="connects to MySQL")
    connection = Rows([(number, "red") for number in range(300)])
    got = []
    monkeypatch.setattr(pymysql, "connect", lambda **options: got.append(options) or connection)

    documents = read_sql(f"mysql://me:{QUOTED}@db:3307/my%20shop?charset=utf8mb4&connect_timeout=5", "SELECT")
    next(documents)
    documents.close()

    login = {"user": "me", "password": SECRET, "database": "my shop", "charset": "utf8mb4", "connect_timeout": 5}
    assert got == [{"host": "db", "port": 3307, **login}]
    statements = ["SET SESSION net_write_timeout = 86400", "START TRANSACTION READ ONLY"]
    assert connection.asked == [("cursor",), *statements, ("cursor", "SSCursor"), "SELECT", 256, "close"]


def test_values_that_json_lacks_are_left_to_the_store():
    """Which refuses their records; everything else is finite."""
    pytest.importorskip("duckdb", reason="has infinity")
    [(_, payload)] = shown(read_sql("duckdb:", "SELECT 1 AS id, 'x' AS text, 'inf'::DOUBLE AS f"))

    assert math.isinf(payload["f"])
