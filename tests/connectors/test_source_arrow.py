"""Parquet, Arrow and Feather: values by their types, alike with and without pandas, and refusals for single rows."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from st_connectors.ingest import DocumentError
from st_connectors.ingest.sources import Format, Meter, Reading, count_path, read_path, size_of_path
from st_connectors.ingest.sources.templates import parse_template

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")

DAY = 86_400 * 10**9
KEY = UUID("12345678-1234-5678-1234-567812345678")


def shown(items) -> list[object]:
    return [str(item) if isinstance(item, DocumentError) else (item.id, dict(item.payload)) for item in items]


def table(**columns) -> pa.Table:
    """Return a table with ids and texts beside some columns."""
    rows = max(len(column) for column in columns.values())
    return pa.table({"id": [str(row) for row in range(rows)], "text": ["x"] * rows} | columns)


def write(content: pa.Table, path: Path) -> Path:
    match path.suffix:
        case ".parquet":
            parquet.write_table(content, path)
        case ".feather":
            feather.write_feather(content, path, compression="zstd")
        case ".arrow":
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, content.schema) as writer:
                writer.write_table(content)
        case ".arrows":
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, content.schema) as writer:
                writer.write_table(content)
    return path


def form_of(path: Path) -> Format:
    return Format.PARQUET if path.suffix == ".parquet" else Format.ARROW


VALUES = {
    "nanoseconds": (pa.array([1, -1, DAY + 1_999], pa.timestamp("ns")), None),
    "zone": (pa.array([1_000], pa.timestamp("ns", "UTC")), ["1970-01-01T00:00:00.000001+00:00"]),
    "seconds": (pa.array([datetime.fromisoformat("2020-01-31T08:00")], pa.timestamp("s")), ["2020-01-31T08:00:00"]),
    "time": (pa.array([1_999], pa.time64("ns")), ["00:00:00.000001"]),
    "clock": (pa.array([time(8, 30)], pa.time32("s")), ["08:30:00"]),
    "day": (pa.array([date(2020, 1, 31)]), ["2020-01-31"]),
    "duration": (pa.array([timedelta(seconds=90, milliseconds=500)], pa.duration("ns")), [90.5]),
    "price": (pa.array([Decimal("1.50"), Decimal("2.00")]), [1.5, 2.0]),
    "whole": (pa.array([Decimal(12345678901234567)], pa.decimal128(20, 0)), [12345678901234567]),
    "half": (pa.array([0.5], pa.float32()).cast(pa.float16()), [0.5]),
    "bytes": (pa.array(["grün".encode()], pa.binary()), ["grün"]),
    "words": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    "days": (pa.array([[date(2020, 1, 31)], []]), [["2020-01-31"], []]),
    "moments": (pa.array([[1_500, None]], pa.list_(pa.timestamp("ns"))), [["1970-01-01T00:00:00.000001", None]]),
    "map": (pa.array([[("a", 1), ("b", None)], []], pa.map_(pa.string(), pa.int64())), [{"a": 1, "b": None}, {}]),
    "numbers": (pa.array([[(1, "x")]], pa.map_(pa.int32(), pa.string())), [{"1": "x"}]),
    "struct": (
        pa.array(
            [{"at": 1_000, "in": [{"d": Decimal("0.5")}]}],
            pa.struct([("at", pa.timestamp("ns")), ("in", pa.list_(pa.struct([("d", pa.decimal128(3, 1))])))]),
        ),
        [{"at": "1970-01-01T00:00:00.000001", "in": [{"d": 0.5}]}],
    ),
    "maps": (
        pa.array([[[("a", 1_000)]]], pa.list_(pa.map_(pa.string(), pa.timestamp("ns")))),
        [[{"a": "1970-01-01T00:00:00.000001"}]],
    ),
    "nothing": (pa.nulls(2), [None, None]),
}
VALUES["nanoseconds"] = (
    VALUES["nanoseconds"][0],
    ["1970-01-01T00:00:00", "1970-01-01T00:00:00", "1970-01-02T00:00:00.000001"],
)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow", ".arrows"])
@pytest.mark.parametrize("name", VALUES)
def test_values_are_read_by_their_types(tmp_path: Path, name, suffix):
    """Moments become ISO 8601 with microseconds, durations seconds, decimals numbers, bytes texts, maps objects."""
    column, expected = VALUES[name]
    path = write(table(value=column), tmp_path / f"t{suffix}")

    results = shown(read_path(path, form_of(path), Reading()))

    assert results == [
        (str(row), {"text": "x"} | ({} if value is None else {"value": value})) for row, value in enumerate(expected)
    ]
    assert [type(item[1].get("value")) for item in results] == [type(value) for value in expected]
    json.dumps(results)


WITHOUT_PANDAS = """
import json, sys

class WithoutPandas:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, WithoutPandas())
from pathlib import Path
from st_connectors.ingest.sources import Format, Reading, read_path
documents = read_path(Path(sys.argv[1]), Format(sys.argv[2]), Reading())
print(json.dumps([[item.id, dict(item.payload)] for item in documents]))
"""


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_values_are_the_same_without_pandas(tmp_path: Path, suffix):
    """Nanoseconds are the case: pyarrow asks for pandas to read them."""
    pytest.importorskip("pandas")
    columns = {
        name: pa.concat_arrays([column, pa.nulls(3 - len(column), column.type)])
        for name, (column, _) in VALUES.items()
        if name not in {"half", "words"}
    }
    path = write(table(**columns), tmp_path / f"t{suffix}")

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PANDAS, path, form_of(path)], capture_output=True, text=True, check=True
    )

    expected = [[item.id, dict(item.payload)] for item in read_path(path, form_of(path), Reading())]
    assert len(expected) == 3
    assert json.loads(done.stdout) == expected


def test_a_value_that_cannot_be_read_refuses_its_row_only(tmp_path: Path):
    """A year beyond 9999, bytes that are no text, and a map with a key twice; the message has the column."""
    moments = pa.array([0, 10**12, 1, 2, 3], pa.timestamp("s"))
    raw = pa.array([b"a", b"b", b"\xff", b"d", None])
    maps = pa.array([[("a", 1)], [], None, [("a", 1), ("a", 2)], [("b", 1)]], pa.map_(pa.string(), pa.int64()))
    path = write(table(at=moments, raw=raw, map=maps), tmp_path / "t.parquet")

    first, second, third, fourth, last = read_path(path, Format.PARQUET, Reading())

    assert first.payload == {"text": "x", "at": "1970-01-01T00:00:00", "raw": "a", "map": {"a": 1}}
    assert last.payload == {"text": "x", "at": "1970-01-01T00:00:03", "map": {"b": 1}}
    assert str(second).startswith(f"{path} row 2: the value of 'at' cannot be read: ")
    assert str(third).startswith(f"{path} row 3: the value of 'raw' cannot be read: 'utf-8' codec can't decode")
    assert str(fourth) == f"{path} row 4: the value of 'map' cannot be read: the map has a key twice"
    assert (third.id, third.value["map" if "map" in third.value else "text"]) == ("2", "x")

    composed = Reading(templates={"id": parse_template("book-{id}")})  # not known of a row that cannot be read
    assert [item.id for item in read_path(path, Format.PARQUET, composed)] == ["book-0", "", "", "", "book-4"]


def test_uuids_are_texts_and_may_be_ids(tmp_path: Path):
    """In their usual form."""
    if not hasattr(pa, "uuid"):
        pytest.skip("needs pyarrow 18 or newer, which has the type")
    keys = pa.array([KEY.bytes], pa.binary(16)).cast(pa.binary(16))
    content = pa.table({"id": pa.ExtensionArray.from_storage(pa.uuid(), keys), "text": ["x"]})
    content = content.append_column("other", content["id"])

    for suffix in (".parquet", ".feather"):
        path = write(content, tmp_path / f"t{suffix}")
        assert shown(read_path(path, form_of(path), Reading())) == [(str(KEY), {"text": "x", "other": str(KEY)})]


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_a_table_with_a_column_twice_is_not_read(tmp_path: Path, suffix):
    """One of the two would be lost."""
    content = pa.Table.from_arrays(
        [pa.array(["1"]), pa.array(["x"]), pa.array([1]), pa.array([2])], ["id", "text", "year", "year"]
    )
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        parquet.write_table(content, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, content.schema) as writer:
            writer.write_table(content)

    with pytest.raises(
        ValueError, match=rf"t\{suffix}: the header repeats 'year'; the columns are id, text, year, year"
    ):
        list(read_path(path, form_of(path), Reading()))


def test_ids_that_pandas_wrote_as_floats_are_whole_numbers(tmp_path: Path):
    """An empty id makes the others floats; a fraction is no id."""
    path = write(pa.table({"id": [2020.0, None, 1.5], "text": ["a", "b", "c"]}), tmp_path / "t.parquet")

    assert shown(read_path(path, Format.PARQUET, Reading())) == [
        ("2020", {"text": "a"}),
        f"{path} row 2: 'id' is missing",
        f"{path} row 3: 'id' must be a string or an integer, not float",
    ]


def test_a_damaged_arrow_file_is_told_by_its_name(tmp_path: Path):
    """One that is none, and one that is cut off."""
    whole = write(table(value=pa.array(range(5000))), tmp_path / "t.feather")
    (tmp_path / "cut.feather").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.arrow").write_bytes(b"no columns in here")

    for name in ("cut.feather", "text.arrow"):
        with pytest.raises(ValueError, match=f"{name}: not Arrow or Feather: "):
            list(read_path(tmp_path / name, Format.ARROW, Reading()))


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrows"])
def test_rows_are_counted_and_measured(tmp_path: Path, suffix):
    """The number of rows, and how much of the file was read, growing to 1."""
    path = write(table(value=pa.array([f"value {number * 7919}" for number in range(5000)])), tmp_path / f"t{suffix}")
    meter = Meter(size_of_path(path, form_of(path)))

    shares = [meter.share() for _ in read_path(path, form_of(path), Reading(meter=meter))]

    assert count_path(path, form_of(path), Reading()) == len(shares) == 5000
    assert shares == sorted(shares)
    assert meter.share() == 1.0
