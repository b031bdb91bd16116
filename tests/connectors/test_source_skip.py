"""Skipping: reading with a skip of n is the full reading without its first n items, whatever the format."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.cli.sources import Input, find_inputs, find_sources, measure, read_inputs
from st_connectors.ingest import DocumentError
from st_connectors.ingest.sources import Format, Notes, Reading, Skip, jsonl, read_path, read_sql, read_stream, rows

ROWS = [{"id": str(number), "text": f"word {number}", "year": 1900 + number} for number in range(7)]


def shown(items) -> list[object]:
    """Return what is compared of documents and refusals: all of it, the places included."""
    return [
        (str(item), item.id, item.value) if isinstance(item, DocumentError) else (item, str(item.place))
        for item in items
    ]


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as row groups or record batches of two rows."""
    match path.suffix:
        case ".parquet":
            pyarrow.parquet.write_table(table, path, row_group_size=2)
        case ".feather":
            pyarrow.feather.write_feather(table, path, chunksize=2)
        case _:
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table, 2)


def write_folder(path: Path) -> None:
    path.mkdir()
    for number in range(5):
        (path / f"{number}.txt").write_text(f"word {number}")
    (path / "1a.txt").write_bytes(b"binary\0")
    (path / "2a.txt").write_bytes(b"gr\xfcn und sch\xf6n")
    (path / "2b.txt").write_bytes(b"\x81\xff is nothing")
    (path / "3a.md").write_text("---\ntitle: red\n---\nbody")


def write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (id TEXT, text TEXT, year INTEGER)")
        database.executemany("INSERT INTO t VALUES (:id, :text, :year)", [*ROWS, {"id": "", "text": None, "year": 1}])
        database.commit()


TEXTS = {
    "a.jsonl": b'\n{"id": 1, "text": "x"}\nnonsense\n\n\xff\n   \n[1]\n{"id": "2", "text": "y"}\n{"id": 3}',
    "a.csv": b'id,text\n1,"a\nb"\n2\n\n3,x,y\n4,"a"b\n5,z\n6,\n7,"never closed\n',
    "a.tsv": b"id\ttext\n1\tx\n2\ty\n",
    "a.json": b'[{"id": 1, "text": "x"}, nonsense, {"id": 2}, \n{"id": 3, "text": "z"}] x',
    "b.json": b'{"id": 1, "text": "x"}\n{"id": 2}\n{"id": 3, "text": "z"}\n',
    "c.json": b'{"id": 1,\n"text": "x"} {"id": 2} {"id": 3, "text": "z"} {',
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Return a folder with one source of every kind."""
    for name, content in TEXTS.items():
        (tmp_path / name).write_bytes(content)
    table = pa.Table.from_pylist([*ROWS, {"id": None, "text": "without an id", "year": 1}])
    for name in ("a.parquet", "a.feather", "a.arrows"):
        write_table(tmp_path / name, table)
    write_folder(tmp_path / "folder")
    write_database(tmp_path / "a.db")
    return tmp_path


def inputs_of(folder: Path, name: str) -> list[Input]:
    if name.startswith("sqlite"):
        return find_sources([], None, (f"{name}:{folder / 'a.db'}", "SELECT * FROM t ORDER BY rowid"))
    return find_inputs([str(folder / name)], None)


NAMES = [*TEXTS, "a.parquet", "a.feather", "a.arrows", "folder", "sqlite", "sqlite+adbc"]


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_with_a_skip_is_the_rest_of_the_full_reading(sources: Path, name):
    """For every n up to one more than there are; what the source lacks remains."""
    inputs = inputs_of(sources, name)
    full = shown(read_inputs(inputs, Reading()))
    assert len(full) > 1

    for count in range(len(full) + 2):
        reading = Reading(skip=Skip(count), meter=measure(inputs))

        assert shown(read_inputs(inputs, reading)) == full[count:]
        assert reading.skip.remaining == max(0, count - len(full))
        assert reading.meter.share() in {1.0, None}


def test_a_skip_continues_in_the_next_source(sources: Path):
    """Positions count the documents of all inputs in order."""
    inputs = [each for name in NAMES for each in inputs_of(sources, name)]
    full = shown(read_inputs(inputs, Reading()))

    for count in range(0, len(full) + 1, 5):
        assert shown(read_inputs(inputs, Reading(skip=Skip(count)))) == full[count:]


def test_standard_input_is_skipped_too(monkeypatch):
    """The lines are read, since a stream cannot go back."""
    content = "".join(json.dumps(row) + "\n" for row in ROWS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    (last,) = read_inputs(find_inputs(["-"], None), Reading(skip=Skip(6)))

    assert last.payload == {"text": "word 6", "year": 1906}
    assert str(last.place) == "standard input line 7"


def count_calls(monkeypatch, module, name: str) -> Callable[[], int]:
    """Count the calls of a function of a module from now on."""
    calls = []
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    return lambda: len(calls)


@pytest.mark.parametrize("name", ["b.json", "a.tsv", "a.parquet", "a.feather", "a.arrows", "sqlite", "sqlite+adbc"])
def test_what_is_skipped_is_not_converted(sources: Path, monkeypatch, name):
    """Only the documents after the skip become documents."""
    total = len(list(read_inputs(inputs_of(sources, name), Reading())))
    converted = count_calls(monkeypatch, rows, "as_document")

    list(read_inputs(inputs_of(sources, name), Reading(skip=Skip(total - 1))))

    assert converted() <= 1


def test_lines_that_are_skipped_are_not_parsed(monkeypatch):
    """JSON is parsed for the lines after the skip only."""
    content = "".join(json.dumps(row) + "\n" for row in ROWS)
    parsed = count_calls(monkeypatch, jsonl.json, "loads")

    list(read_stream(io.BytesIO(content.encode()), Format.JSONL, Reading(skip=Skip(5)), "in"))

    assert parsed() == 2


def test_row_groups_that_are_skipped_are_not_read(tmp_path: Path):
    """A damaged row group matters only to those who read it."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2, compression="none")
    raw = bytearray(path.read_bytes())
    start = pyarrow.parquet.read_metadata(path).row_group(0).column(0).data_page_offset
    raw[start : start + 8] = b"\xff" * 8
    path.write_bytes(raw)

    with pytest.raises(ValueError, match="damaged"):
        list(read_path(path, Format.PARQUET, Reading(skip=Skip(1))))
    assert [each.id for each in read_path(path, Format.PARQUET, Reading(skip=Skip(3)))] == ["3", "4", "5", "6"]


LINES = st.sampled_from(["blue", "grün und schön", "Öl", "été", "\x81\x8d", "schöne grüne Bäume am Fluß"])
ENCODINGS = st.sampled_from(["utf-8", "cp1252", "latin-1"])


@pytest.mark.parametrize("form", [Format.JSONL, Format.CSV, Format.JSON])
@given(lines=st.lists(st.tuples(LINES, ENCODINGS), min_size=1, max_size=6))
def test_the_encoding_is_guessed_as_if_everything_was_read(form, lines):
    """A guess by an early line, or UTF-8 in one, decides about later lines, and its note is the same."""
    raws = [text.encode(encoding, "ignore") for text, encoding in lines]
    if form is Format.CSV:
        content = b"id,text\n" + b"".join(b"%d,%s\n" % pair for pair in enumerate(raws))
    else:
        objects = [b'{"id": %d,\n"text": "%s"}' % pair for pair in enumerate(raws)]
        one_line = [each.replace(b"\n", b"") for each in objects]
        content = b"\n".join(one_line) if form is Format.JSONL else b"[" + b",".join(objects) + b"]"

    def read(reading: Reading) -> list[object]:
        return shown(read_stream(io.BytesIO(content), form, reading, "in"))

    full = Reading()
    items = read(full)
    for count in range(len(items) + 1):
        reading = replace(full, notes=Notes(), skip=Skip(count))
        assert read(reading) == items[count:]
        assert reading.notes.sentences == full.notes.sentences


def test_blocks_are_skipped_whole_or_not_at_all():
    """A block that is larger than what remains is read, and its start is skipped item by item."""
    skip = Skip(5)

    assert skip.many(3)
    assert not skip.many(3)
    assert skip.remaining == 2
    assert skip.up_to(7) == 2
    assert not skip.one()
    assert skip.many(0)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Skip(-1)


def test_a_query_skips_in_python_too(sources: Path):
    """``read_sql`` takes the same reading."""
    url = f"sqlite:{sources / 'a.db'}"

    found = list(read_sql(url, "SELECT * FROM t ORDER BY rowid", Reading(skip=Skip(6))))

    assert [str(each.place) for each in found] == [f"{url} row 7", f"{url} row 8"]
