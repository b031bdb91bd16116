"""Copies are the same to the bit, hold a batch at a time, and are finished by beginning again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from st_connectors import copying
from st_connectors.copying import content_hash, copy, same_place
from st_connectors.errors import SchemaMismatch, Unavailable
from st_connectors.filters import Eq
from st_connectors.ingest import IngestFailed, IngestInterrupted
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField, TextField
from st_connectors.store import Record
from st_core.vectors import SparseVector

FIELDS = {"dense": DenseField(8), "sparse": SparseField(), "text": TextField()}
SCHEMA = Schema("books", FIELDS, {"year": FilterKind.INT})


def record(number: int) -> Record:
    """Unit vectors, unless the number says that one is missing; nested payloads."""
    random = np.random.default_rng(number)
    dense = random.standard_normal(8).astype(np.float32)
    vectors = {"dense": dense / np.linalg.norm(dense)} if number % 5 else {}
    if number % 7:
        vectors["sparse"] = SparseVector.from_arrays(random.choice(10**6, 20, replace=False), random.random(20))
    payload = {"z": number, "a": {"deep": [1, 1.0, None, "é"]}, "text": f"words {number}", "year": 1900 + number}
    return Record(f"id {number}", vectors, payload)


def stored(store) -> dict[str, bytes]:
    """What a store holds, by id."""
    return {one.id: content_hash(one) for one in store.scan()}


@pytest.fixture
def source(request):
    """A store in memory with 230 records."""
    store = open_store(f"memory:{request.node.name}", "books", SCHEMA)
    store.create()
    assert store.upsert([record(number) for number in range(230)]) == []
    yield store
    store.drop()


@pytest.fixture
def target(request):
    """Another store, not made yet."""
    store = open_store(f"memory:{request.node.name}", "again", replace(SCHEMA, collection="again"))
    yield store
    store.drop()


class Passing:
    """A store that hands everything on; tests replace what they look at."""

    def __init__(self, store) -> None:
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)


class Breaking(Passing):
    """Takes some calls of ``upsert`` and then raises."""

    def __init__(self, store, error: BaseException, *, calls: int) -> None:
        super().__init__(store)
        self._error = error
        self._calls = calls

    def upsert(self, records):
        if self._calls == 0:
            raise self._error
        self._calls -= 1
        return self._store.upsert(records)


class Counting(Passing):
    """Counts what is written."""

    def __init__(self, store) -> None:
        super().__init__(store)
        self.written: list[str] = []

    def upsert(self, records):
        self.written += [one.id for one in records]
        return self._store.upsert(records)


def test_everything_arrives_as_it_was(source, target):
    """Every id, payload and bit of a vector, records without vectors too; the report counts them."""
    report = copy(source, target, batch=50)

    assert stored(target) == stored(source)
    assert len(stored(target)) == 230
    assert (report.read, report.confirmed, report.records, report.skipped, report.refused_total) == (
        230,
        230,
        230,
        0,
        0,
    )


def test_a_record_is_read_only_when_it_is_soon_written(source, target):
    """No more than one batch is held, whatever the size of the collection."""
    lead = [0]
    most = [0]

    class Reading(Passing):
        def scan(self, **options) -> Iterator[Record]:
            for one in self._store.scan(**options):
                lead[0] += 1
                most[0] = max(most[0], lead[0])
                yield one

    class Writing(Passing):
        def upsert(self, records):
            lead[0] -= len(records)
            return self._store.upsert(records)

    copy(Reading(source), Writing(target), batch=20)

    assert (lead[0], most[0]) == (0, 20)


def test_large_records_make_smaller_batches(source, target, monkeypatch):
    """A batch ends at about BATCH_BYTES."""
    monkeypatch.setattr(copying, "BATCH_BYTES", 1)
    sizes = []

    class Writing(Passing):
        def upsert(self, records):
            sizes.append(len(records))
            return self._store.upsert(records)

    copy(source, Writing(target))

    assert sizes == [1] * 230


@pytest.mark.parametrize(
    ("error", "raised"),
    [(Unavailable("gone", store="x", operation="upsert"), IngestFailed), (KeyboardInterrupt(), IngestInterrupted)],
)
def test_a_copy_that_was_stopped_is_finished(source, target, error, raised):
    """The report counts what was confirmed until then; with skip_existing only the rest is written."""
    with pytest.raises(raised) as stopped:
        copy(source, Breaking(target, error, calls=2), batch=50)
    counting = Counting(target)
    report = copy(source, counting, skip_existing=True, batch=30)

    assert (stopped.value.report.read, stopped.value.report.confirmed) == (100, 100)
    assert stopped.value.__cause__ is error
    assert (report.read, report.skipped, report.confirmed) == (230, 100, 130)
    assert len(counting.written) == 130
    assert stored(target) == stored(source)


def test_a_store_that_breaks_while_it_is_read(source, target):
    """What was read before it is confirmed is told, and copying again finishes."""

    class Reading(Passing):
        def scan(self, **options) -> Iterator[Record]:
            for number, one in enumerate(self._store.scan(**options)):
                if number == 75:
                    raise Unavailable("gone", store="x", operation="scan")
                yield one

    with pytest.raises(IngestFailed) as stopped:
        copy(Reading(source), target, batch=50)
    copy(source, target, skip_existing=True)

    assert stopped.value.report.confirmed == 50
    assert stored(target) == stored(source)


def changed(one: Record, how: str) -> Record:
    """The record with one small thing about it changed."""
    payload = dict(one.payload)
    vectors = dict(one.vectors)
    match how:
        case "the order of keys":
            payload = dict(reversed(payload.items()))
        case "a float for a whole number":
            payload["z"] = float(payload["z"])
        case "a missing vector":
            del vectors["sparse"]
        case "the last bit of a weight":
            sparse = vectors["sparse"]
            vectors["sparse"] = SparseVector(sparse.indices, np.nextafter(sparse.values, np.float32(2)))
        case "the last bit of a number":
            dense = vectors["dense"].copy()
            dense[3] = np.nextafter(dense[3], np.float32(2))
            vectors["dense"] = dense
    return Record(one.id, vectors, payload)


@pytest.mark.parametrize(
    "how",
    [
        "the order of keys",
        "a float for a whole number",
        "a missing vector",
        "the last bit of a weight",
        "the last bit of a number",
    ],
)
def test_what_differs_is_written_again(source, target, how):
    """The smallest difference counts, and nothing else is written."""
    copy(source, target)
    target.upsert([changed(record(11), how), Record("extra", {}, {})])
    counting = Counting(target)

    report = copy(source, counting, skip_existing=True)

    assert counting.written == ["id 11"]
    assert report.skipped == 229
    assert stored(target) == stored(source) | {"extra": content_hash(Record("extra", {}, {}))}


def test_vectors_that_the_target_would_bring_to_unit_length_are_no_difference(source, target):
    """A source that keeps vectors of any length is compared by what the target makes of them."""
    copy(source, target)

    class Longer(Passing):
        def scan(self, **options) -> Iterator[Record]:
            for one in self._store.scan(**options):
                dense = {name: 2 * one.vectors[name] for name in one.vectors if name == "dense"}
                yield Record(one.id, {**one.vectors, **dense}, one.payload)

    counting = Counting(target)
    first = copy(Longer(source), counting, skip_existing=True)
    second = copy(Longer(source), counting, skip_existing=True)

    assert first.confirmed < 230
    assert second.skipped == 230


def test_refused_records_are_told_by_their_place_and_the_others_are_in(source, target):
    """A record that the target does not take is counted and named."""

    class Spoiling(Passing):
        def scan(self, **options) -> Iterator[Record]:
            for one in self._store.scan(**options):
                yield Record(one.id, {"nope": np.ones(2)}, {}) if one.id == "id 123" else one

    for skip in (False, True):
        report = copy(Spoiling(source), target, skip_existing=skip, batch=50)

        [refused] = report.refused
        assert (refused.position, refused.id) == (123, "id 123")
        assert "unknown field 'nope'" in refused.reason
        assert (report.confirmed + report.skipped, report.refused_total) == (229, 1)


def test_progress_is_told_after_every_batch(source, target):
    """The counts grow to the final one."""
    seen = []

    report = copy(source, target, batch=100, progress=lambda done: seen.append(done.confirmed))

    assert seen == [100, 200, 230]
    assert report.confirmed == 230


def test_another_schema_is_refused_before_anything_is_written(source):
    """The difference is told, and the target stays as it is."""
    other = open_store("memory:mismatch", "books", replace(SCHEMA, fields={"dense": DenseField(9)}))
    other.create()

    with pytest.raises(SchemaMismatch, match="dense"):
        copy(source, other)

    assert other.count() == 0
    other.drop()


def test_a_copy_may_have_further_filterable_fields(source, target):
    """They match the copies; a source with more of them than its target is another schema."""
    wider = replace(target.schema, filterable={"year": FilterKind.INT, "z": FilterKind.INT})
    other = open_store("memory:wider", "again", wider)

    assert copy(source, other).confirmed == 230

    assert stored(other) == stored(source)
    assert [each.id for each in other.scan(where=Eq("z", 7))] == ["id 7"]
    with pytest.raises(
        SchemaMismatch, match="has no filterable field 'z', and the schema the filterable field 'z' as int"
    ):
        copy(other, open_store("memory:wider", "again", replace(SCHEMA, collection="again")))
    other.drop()


def test_wrong_arguments(source):
    """One store twice, and a batch of nothing."""
    with pytest.raises(ValueError, match="the same store"):
        copy(source, source)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        copy(source, Passing(source), batch=0)


def test_hashes_tell_records_apart_whatever_their_parts_join_to():
    """An id's end is not taken for a payload's beginning, nor one field's name for another's."""
    ones = np.ones(2, np.float32)
    records = [
        Record("a", {"b": ones}, {}),
        Record("a", {"c": ones}, {}),
        Record("ab", {"": ones}, {}),
        Record("a", {"b": ones, "c": ones}, {}),
        Record("a", {}, {"b": [1.0, 1.0]}),
        Record("a", {"b": SparseVector.from_mapping({1: 1.0})}, {}),
    ]

    assert len({content_hash(one) for one in records}) == len(records)
    assert content_hash(records[3]) == content_hash(Record("a", {"c": ones, "b": ones.copy()}, {}))


def test_a_copied_payload_is_json_to_the_letter(source, target):
    """Text of the payload, not only equality in Python, where 1 equals 1.0."""
    copy(source, target)

    ours, theirs = ({one.id: json.dumps(one.payload) for one in store.scan()} for store in (source, target))
    assert ours == theirs


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("memory:a", "memory:a", True),
        ("memory:a", "memory:b", False),
        ("qdrant+edge:library", "qdrant+edge:./x/../library", True),
        ("qdrant+edge:library", "milvus+lite:library", False),
        ("qdrant+edge:library", "qdrant+memory:library", False),
        ("qdrant://one:6333", "qdrant://one:6333?timeout=3", True),
        ("qdrant://one:6333", "qdrant://two:6333", False),
        ("opensearch://one:9200", "elasticsearch://one:9200", False),
    ],
)
def test_addresses_of_one_place(one, other, same):
    """Options and the way a path is written make no other place."""
    assert same_place(one, other) is same
