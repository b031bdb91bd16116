"""Iterables with a state: an ingest goes on after any item, with the items that are left and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors import Index
from st_connectors.errors import Permanent
from st_connectors.ingest import DocumentError, IngestFailed, Patience
from st_connectors.ingest.sources import StatefulItems, is_stateful, items_of, plain_item
from st_connectors.store import Record, Rejected, Store

ROWS = [{"id": str(number), "text": f"word {number}", "year": 1900 + number} for number in range(10)]


class Counting:
    """A stateful iterable as torchdata's: its state is one object that changes while it is read."""

    def __init__(self, rows: list[Any] | None = None) -> None:
        self.rows = ROWS if rows is None else rows
        self.state = {"next": 0}

    def __iter__(self) -> Iterator[Any]:
        while self.state["next"] < len(self.rows):
            self.state["next"] += 1
            yield self.rows[self.state["next"] - 1]

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = dict(state)


def stored(state: Any) -> Any:
    """Return a state as another process reads it."""
    return json.loads(json.dumps(state))


def resumed(source: Any, state: Any) -> list[object]:
    items = StatefulItems(source)
    items.load_state_dict(stored(state))
    return list(items)


def test_what_is_stateful():
    """Both methods and an iteration are needed."""
    assert is_stateful(Counting())
    assert not is_stateful(ROWS)
    assert not is_stateful(iter(ROWS))
    assert not is_stateful({"state_dict": 1})


@given(batches=st.lists(st.integers(1, 4), min_size=1, max_size=6), data=st.data())
def test_reading_goes_on_after_any_batch(batches, data):
    """However far the reader was ahead: the state at the end of a batch does not change as later batches are read."""
    items = StatefulItems(Counting())
    source = iter(items)
    states = [(0, items.state_dict())]
    for size in batches:
        read = len(list(islice(source, size)))
        states.append((states[-1][0] + read, items.state_dict()))

    position, state = data.draw(st.sampled_from(states))

    assert resumed(Counting(), state) == ROWS[position:]


@pytest.mark.parametrize(
    "state", [{"generator": b"\0"}, {"weights": (1, 2)}, {1: "a"}, {"loss": float("nan")}, {"loss": float("inf")}]
)
def test_a_state_that_json_would_change_is_none(state):
    """Reading then begins at the start, and passes over what was stored."""
    source = Counting()
    source.state = state

    assert StatefulItems(source).state_dict() is None


PLAIN = {
    "null": (None, "absent"),
    "numpy numbers": ([np.int64(3), np.float32(0.5), np.bool_(True), np.float64(1.5)], [3, 0.5, True, 1.5]),
    "numpy text": (np.str_("red"), "red"),
    "array": (np.array([[1, 2], [3, 4]], np.int8), [[1, 2], [3, 4]]),
    "numpy time": (np.datetime64("2020-01-31T08:00:00.123456789"), "2020-01-31T08:00:00.123456"),
    "numpy times": (np.array(["2020-01-31", "NaT"], "datetime64[D]"), ["2020-01-31T00:00:00", None]),
    "numpy duration": (np.timedelta64(1500, "ms"), 1.5),
    "time": (datetime.fromisoformat("2020-01-31T08:00+02:00"), "2020-01-31T08:00:00+02:00"),
    "day": (date(2020, 1, 31), "2020-01-31"),
    "duration": (timedelta(minutes=1), 60.0),
    "decimal": ({"price": [Decimal("1.50"), Decimal(2)]}, {"price": [1.5, 2]}),
    "bytes": ("grün".encode(), "grün"),
    "uuid": (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    "tuple": ((1, (np.int32(2),)), [1, [2]]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_values_become_those_of_json(name):
    """As those of Parquet do, with the same types."""
    value, expected = PLAIN[name]

    row = plain_item({"id": "1", "value": value})

    assert isinstance(row, dict)
    assert row == {"id": "1"} | ({} if expected == "absent" else {"value": expected})
    assert json.loads(json.dumps(row)) == row
    assert type(row.get("value")) in {str, int, float, bool, list, dict, type(None)}


def test_values_of_pandas_become_those_of_json():
    """Nanoseconds are cut, and NaT is absent."""
    pandas = pytest.importorskip("pandas", reason="has its own times")
    at = pandas.Timestamp("2020-01-31T08:00:00.123456789", tz="UTC")

    row = plain_item({"at": at, "never": pandas.NaT, "took": pandas.Timedelta("1.5s"), "all": [pandas.NaT]})

    assert row == {"at": "2020-01-31T08:00:00.123456+00:00", "took": 1.5, "all": [None]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff", "the value of 'value' cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (np.datetime64("20000-01-01"), "the value of 'value' cannot be read: a time is before the year 1 or after"),
    ],
)
def test_a_value_that_cannot_be_read_refuses_its_item(value, reason):
    """With its id and what could be read."""
    error = plain_item({"id": 7, "text": "x", "value": value, "year": None})

    assert isinstance(error, DocumentError)
    assert error.reason.startswith(reason)
    assert (error.id, error.value) == ("7", {"id": 7, "text": "x"})


def test_a_value_without_a_form_in_json_is_refused_by_its_key():
    """By the store, as in any mapping."""
    rows = [{"id": "a", "text": "x", "image": object()}, {"id": "b", "text": "y"}]
    with Index.create("memory:images", collection="c", dense="builtin:dense") as index:
        report = index.ingest(StatefulItems(Counting(rows)))

    assert report.confirmed == 1
    assert report.refused[0].id == "a"
    assert report.refused[0].reason.startswith("payload['image'] ")


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that opens the same three files as a stream of ``datasets``, each time anew."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="is the library whose streams are read")
    files = []
    for number in range(3):
        files.append(str(tmp_path / f"{number}.jsonl"))
        lines = [{**row, "at": "2020-01-31T08:00:00", "none": None} for row in ROWS[4 * number : 4 * number + 4]]
        Path(files[-1]).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def load() -> Any:
        return datasets.load_dataset("json", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))

    return load


FORMS = {
    "plain": lambda stream: stream,
    "batched": lambda stream: stream.map(
        lambda batch: {"text": [text.upper() for text in batch["text"]]}, batched=True, batch_size=3
    ),
    "filtered": lambda stream: stream.filter(lambda row: row["year"] % 2 == 0),
    "numpy": lambda stream: stream.with_format("numpy"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_of_datasets_goes_on_where_it_stopped(stream, form):
    """After every number of items, in a new stream, with the state as JSON."""
    full = list(StatefulItems(FORMS[form](stream())))
    assert len(full) == (5 if form == "filtered" else 10)
    assert json.loads(json.dumps(full)) == full
    assert full[0] == ROWS[0] | {"text": "WORD 0" if form == "batched" else "word 0", "at": "2020-01-31T08:00:00"}
    items = StatefulItems(FORMS[form](stream()))
    states = [items.state_dict(), *(items.state_dict() for _ in items)]

    assert is_stateful(FORMS[form](stream()))
    for count, state in enumerate(states):
        again = FORMS[form](stream())
        assert resumed(again, state) == full[count:]
        assert len(list(again)) == len(full)


class Failing:
    """A store that remembers the ids that it wrote, and fails at one request."""

    def __init__(self, store: Store, at: int = 0) -> None:
        self._store = store
        self._left = at
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        self._left -= 1
        if not self._left:
            raise Permanent("the disk is full", store="fake", operation="upsert")
        self.written += [record.id for record in records]
        return self._store.upsert(records)


@pytest.mark.parametrize("form", [*FORMS, "shuffled"])
def test_an_ingest_of_a_stream_of_datasets_loses_nothing(stream, tmp_path, form):
    """The store fails at the third batch; the same ingest of a new stream stores the rest, and nothing twice."""
    load = (FORMS | {"shuffled": lambda each: each.shuffle(seed=1, buffer_size=3)})[form]
    expected = sorted(row["id"] for row in load(stream()))
    state, stopped = tmp_path / "state.json", Patience(limit=0)
    with Index.create("memory:", collection="c", dense="builtin:dense") as index:
        failing = Failing(index.store, at=3)
        with pytest.raises(IngestFailed, match="the disk is full"):
            Index(failing, index._models).ingest(load(stream()), batch=2, resume=state, patience=stopped)
        assert len(failing.written) == 4

        again = Failing(index.store)
        report = Index(again, index._models).ingest(load(stream()), batch=2, resume=state)

    assert report.confirmed == len(expected)
    assert sorted(failing.written + again.written) == expected


def test_every_dataset_is_read_with_plain_values(stream):
    """Also one that has no state; other iterables are what they were."""
    datasets = pytest.importorskip("datasets", reason="is the library whose rows are read")
    at = datetime.fromisoformat("2020-01-31T08:00:00")
    table = datasets.Dataset.from_list([{"id": 1, "text": "a", "at": at, "none": None}])
    shuffled = stream().shuffle(seed=1, buffer_size=3)

    assert isinstance(items_of(stream()), StatefulItems)
    assert list(items_of(table)) == [{"id": 1, "text": "a", "at": "2020-01-31T08:00:00"}]
    assert not isinstance(items_of(shuffled), StatefulItems)
    assert sorted(row["id"] for row in items_of(shuffled)) == [row["id"] for row in ROWS]
    assert items_of(ROWS) is ROWS


def test_a_shuffled_stream_of_datasets_is_not_stateful(stream):
    """Its state lacks the items of the buffer, which would be lost; also inside of other streams and of a loader."""
    shuffled = stream().shuffle(seed=1, buffer_size=3)

    class Loader(Counting):
        dataset = None

    loader = Loader()
    assert is_stateful(loader)
    loader.dataset = shuffled
    for each in (shuffled, shuffled.map(dict).filter(bool), loader):
        assert not is_stateful(each)

    iterator = iter(shuffled)
    first = [next(iterator)["id"] for _ in range(5)]
    shuffled.load_state_dict(shuffled.state_dict())
    assert sorted(first + [row["id"] for row in shuffled]) != [row["id"] for row in ROWS]
