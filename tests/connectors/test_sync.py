"""A sync makes a collection equal to its source, and encodes only the texts that have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from st_connectors import index as indexes
from st_connectors.errors import Unavailable
from st_connectors.index import Index, Split
from st_connectors.ingest import (
    DeleteMissing,
    DeletionRefusedError,
    DocumentError,
    IngestFailed,
    IngestInterrupted,
    Missing,
    Patience,
)
from st_connectors.ingest.planning import plan_sync
from st_connectors.models import LazyModel
from st_connectors.store import Parts, Record


class Counting:
    """A dense encoder that remembers the texts that it has encoded."""

    name = "counting"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_document(self, inputs: list[str], /) -> np.ndarray:
        self.texts += inputs
        return np.array([[1 + text.count(letter) for letter in "abcdefgh"] for text in inputs], np.float32)

    encode_query = encode_document


class Passing:
    """A store that passes every call to another one."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def model() -> Counting:
    return Counting()


@pytest.fixture(autouse=True)
def by_characters(monkeypatch):
    """Split by characters, so that the windows are known without a tokenizer."""
    monkeypatch.setattr(indexes, "spans_of", lambda _models, split: lambda text: windows_of(text, split.tokens))


def windows_of(text: str, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, len(text))) for start in range(0, max(len(text), 1), size)]


@pytest.fixture
def index(request, model) -> Iterator[Index]:
    with opened(request.node.nodeid, model) as created:
        yield created
        created.drop()


def opened(name: str, model: Counting, **options: Any) -> Index:
    index = Index.create(f"memory:{name}", collection="c", dense=model, **options)
    index._models["dense"].ref()  # encodes a probe text
    model.texts.clear()
    return index


def contents(index: Index) -> dict[str, tuple[Mapping[str, Any], list[float]]]:
    """Return what is stored, without the hashes of syncs."""
    return {
        record.id: (
            {key: value for key, value in record.payload.items() if key != "_sync"},
            np.asarray(record.vectors["dense"]).tolist(),
        )
        for record in index.store.scan()
    }


def documents(*rows: tuple[str, str, int]) -> list[dict[str, Any]]:
    return [{"id": name, "text": text, "n": number} for name, text, number in rows]


ABC = documents(("a", "aa", 1), ("b", "bb", 2), ("c", "cc", 3))


@pytest.mark.parametrize("before", ["sync", "ingest"])
def test_only_what_changed_is_encoded_and_written(index, model, before):
    """After a sync by the hashes, after an ingest by the stored payloads."""
    getattr(index, before)(ABC)
    model.texts.clear()
    new = documents(("a", "aa", 1), ("b", "bb", 20), ("c", "changed", 3), ("d", "dd", 4))
    written: list[str] = []
    index._store = Passing(index.store)
    index._store.upsert = lambda records: written.extend(r.id for r in records) or index._store._store.upsert(records)

    report = index.sync(new)

    assert model.texts == ["changed", "dd"]
    assert sorted(written) == ["b", "c", "d"]
    assert (report.read, report.confirmed, report.unchanged, report.payload_only) == (4, 3, 1, 1)
    assert {name: payload["n"] for name, (payload, _) in contents(index).items()} == {"a": 1, "b": 20, "c": 3, "d": 4}
    model.texts.clear()
    again = index.sync(new)
    assert (again.unchanged, again.confirmed, model.texts) == (4, 0, [])


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (None, 0), ("1", 1), ([1, 2], [2, 1]), ({}, None)])
@pytest.mark.parametrize("before", ["sync", "ingest"])
def test_payloads_differ_by_type_and_order(index, model, before, one, other):
    """Values that Python calls equal are different in JSON; the order of keys has no effect."""
    getattr(index, before)([{"id": "a", "text": "aa", "x": one, "y": 0}])
    model.texts.clear()

    assert index.sync([{"y": 0, "x": other, "text": "aa", "id": "a"}]).payload_only == 1
    assert index.sync([{"id": "a", "text": "aa", "x": other, "y": 0}]).unchanged == 1
    assert model.texts == []
    [record] = index.get(["a"])
    assert (record.payload["x"], type(record.payload["x"])) == (other, type(other))


def test_the_hashes_are_in_the_payload_of_each_window(index):
    """Under a key that documents may not have."""
    index.sync([{"id": "a", "text": "aaaabbbbcc", "n": 1}], split=Split(4))

    records = list(index.store.scan())
    entries = [record.payload["_sync"] for record in records]
    assert [sorted(entry) for entry in entries] == [["payload", "text"]] * 3
    assert len({tuple(entry.values()) for entry in entries}) == 1
    assert [r.reason for r in index.ingest([{"id": "b", "text": "b", "_sync": 1}]).refused] == [
        "the payload key '_sync' is reserved for the hashes of a sync"
    ]
    with pytest.raises(ValueError, match="'_sync' cannot be filterable"):
        Index.create("memory:", collection="f", text=True, filterable={"_sync": "keyword"})


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.text("abc ", min_size=1, max_size=14),
        st.sampled_from([0, 1, 1.0, True, None, "x"]),
    ),
    max_size=14,
)


@given(
    old=ROWS,
    new=ROWS,
    keep=st.sets(st.sampled_from("abcdefgh")),
    before=st.sampled_from(["sync", "ingest"]),
    sizes=st.tuples(*[st.sampled_from([None, 3, 5])] * 2),
    batch=st.integers(1, 6),
    writers=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_a_sync_the_collection_is_the_source(model, old, new, keep, before, sizes, batch, writers):
    """Number by number, and exactly the windows of new and changed documents are encoded."""
    kept = [row for row in old if row[0] in keep]
    new = [row for row in new if row[0] not in keep] + kept
    assume(new)
    splits = [None if size is None else Split(size) for size in sizes]
    with ExitStack() as stack:
        index, expected = (opened(name, each) for name, each in (("property", model), ("expected", Counting())))
        for each in (index, expected):
            stack.callback(each.drop)
        getattr(index, before)(documents(*old), split=splits[0], batch=batch)
        stored = contents(index)
        expected.ingest(documents(*new), split=splits[1])
        model.texts.clear()

        report = index.sync(documents(*new), split=splits[1], batch=batch, writers=writers, delete_missing=everything())

        assert contents(index) == contents(expected)
        assert report.read == len(new) == report.confirmed + report.unchanged
        assert report.deleted == len({row[0] for row in old} - {row[0] for row in new})
        counts = Counter(row[0] for row in new)
        changed = Counter(
            window
            for name, (payload, _) in contents(expected).items()
            if counts[name.partition("#")[0]] == 1
            and not is_text_stored(name.partition("#")[0], contents(expected), stored)
            for window in [payload["text"]]
        )
        once = Counter(
            text[start:end]
            for name, text, _ in new
            if counts[name] > 1
            for start, end in (windows_of(text, sizes[1]) if sizes[1] else [(0, len(text))])
        )
        encoded = Counter(model.texts)
        assert changed <= encoded
        assert encoded <= changed + once


def everything() -> DeleteMissing:
    return DeleteMissing(limit=1.0)


def is_text_stored(name: str, source: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Return whether all windows of a document are stored with the text and the position that they have in a source."""
    mine = {key: value for key, value in source.items() if key.partition("#")[0] == name}
    keys = ("text", "_chunk")
    return all(
        key in stored and all(stored[key][0].get(part) == payload.get(part) for part in keys)
        for key, (payload, _) in mine.items()
    )


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_last_of_several_documents_with_one_id_is_stored(index, batch):
    """Also if an earlier or the last one equals what is stored."""
    index.sync(ABC)
    for versions in (("x", "aa"), ("aa", "x"), ("aa", "x", "aa")):
        report = index.sync(documents(*(("a", text, 1) for text in versions)), batch=batch)
        assert index.get(["a"])[0].payload["text"] == versions[-1]
        assert report.read == len(versions) == report.confirmed + report.unchanged


def test_another_model_counts_as_changed(index, model, monkeypatch):
    """By its fingerprint; the precision alone, which depends on the machine, does not count."""
    index.sync(ABC)
    index.ingest(documents(("d", "dd", 4)))
    ref = index._models["dense"].ref()
    fingerprint = {"weights": "1", "precision": "p"}
    monkeypatch.setattr(LazyModel, "ref", lambda _self: replaced(ref, fingerprint))
    model.texts.clear()
    every = [*ABC, *documents(("d", "dd", 4))]

    assert index.sync(every).confirmed == 4
    fingerprint["precision"] = "q"
    assert index.sync(every).confirmed == 0
    fingerprint["weights"] = "2"
    assert index.sync(every).confirmed == 4
    assert len(model.texts) == 8


def replaced(ref: Any, fingerprint: Mapping[str, str]) -> Any:
    from dataclasses import replace

    return replace(ref, fingerprint=dict(fingerprint))


@pytest.mark.parametrize("parts", [Parts.PAYLOAD, Parts.VECTORS])
def test_a_store_that_is_down_for_a_moment_is_waited_for(index, model, parts):
    """Also by each of the two lookups of the comparison, which then encodes no text that is stored."""
    index.sync(TEN)
    model.texts.clear()
    failures = [Unavailable("down", store="fake", operation="get")] * 2
    whole, index._store = index.store, Passing(index.store)

    def get(ids: Sequence[str], **options: Any) -> Any:
        return fail(failures.pop()) if failures and options["parts"] is parts else whole.get(ids, **options)

    index._store.get = get

    report = index.sync([TEN[0] | {"n": -1}, *TEN[1:]], batch=5, patience=Patience(60, 0, 0))

    assert (report.unchanged, report.payload_only, model.texts, failures) == (9, 1, [], [])


def test_a_store_that_fails_before_the_first_document_fails_the_sync(index):
    """As an ingest fails, whose report is empty."""
    index._store = Passing(index.store)
    index._store.count = lambda *_arguments: fail(Unavailable("down", store="fake", operation="count"))
    with pytest.raises(IngestFailed, match="down") as caught:
        index.sync(ABC)
    assert caught.value.report.read == 0


def fail(error: Exception) -> Any:
    raise error


class Losing(Passing):
    """A store that fails for good after a number of requests."""

    left = 0

    def upsert(self, records: Sequence[Record]) -> Any:
        if not self.left:
            raise Unavailable("gone", store="fake", operation="upsert")
        self.left -= 1
        return self._store.upsert(records)


def test_an_interrupted_sync_skips_what_is_stored(index, model):
    """Nothing is encoded twice, and nothing is deleted before the end."""
    index.ingest(documents(("old", "oo", 0)))
    many = documents(*((f"d{n}", f"text {n}", n) for n in range(40)))
    whole = index.store
    index._store = Losing(whole)
    index._store.left = 2
    with pytest.raises(IngestFailed, match="gone"):
        index.sync(many, batch=5, writers=1, patience=Patience(0), delete_missing=everything())
    assert index.get(["old"])
    index._store = whole
    stored = {payload["text"] for payload, _ in contents(index).values()}
    assert len(stored) == 11
    model.texts.clear()

    report = index.sync(many, batch=5, delete_missing=everything())

    assert (report.unchanged, report.confirmed, report.deleted) == (10, 30, 1)
    assert set(model.texts).isdisjoint(stored)
    assert len(contents(index)) == 40


def test_a_window_that_is_lost_is_written_again(index, model):
    """As after a crash between two requests of one document."""
    long = [{"id": "a", "text": "aaaabbbbcc"}]
    index.sync(long, split=Split(4))
    expected = contents(index)
    index.store.delete(["a#window-2"])

    assert index.sync(long, split=Split(4)).confirmed == 1
    assert contents(index) == expected


def test_no_crash_leaves_a_stale_window(index):
    """The process ends between any two requests of a sync that makes a document shorter, or not split at all."""
    long, short = [{"id": "a", "text": "aaaabbbbccccdd"}], [{"id": "a", "text": "aaaabbbb"}]
    for split, count in ((Split(4), 2), (None, 1)):
        for stop in range(3):
            index.sync(long, split=Split(4))
            whole, index._store = index.store, Stopping(index.store, stop)
            with suppress(IngestFailed):
                index.sync(short, split=split, patience=Patience(0))
            index._store = whole
            index.sync(short, split=split)
            assert len(contents(index)) == count


class Stopping(Passing):
    """A store that fails at one of its writes and after."""

    def __init__(self, store: Any, stop: int) -> None:
        super().__init__(store)
        self.left = stop

    def _write(self, call: Any, argument: Any) -> Any:
        if not self.left:
            raise Unavailable("gone", store="fake", operation="write")
        self.left -= 1
        return call(argument)

    def upsert(self, records: Sequence[Record]) -> Any:
        return self._write(self._store.upsert, records)

    def delete(self, ids: Sequence[str]) -> Any:
        return self._write(self._store.delete, ids)


TEN = documents(*((f"d{n}", f"text {n}", n) for n in range(10)))


def deletion_refused(index: Index, source: Any, options: bool | DeleteMissing = True) -> str:
    """Sync with deletion, which must be refused and leave all documents; return the message."""
    with pytest.raises(IngestFailed) as caught:
        index.sync(source, delete_missing=options)
    assert isinstance(caught.value.__cause__, DeletionRefusedError)
    assert len(contents(index)) == 10
    return str(caught.value.__cause__)


def test_missing_documents_are_deleted_with_their_windows(index):
    """Only if that is requested; a window whose number exceeds those of the source belongs to its document."""
    index.ingest([*TEN, {"id": "long", "text": "aaaabbbbcc"}], split=Split(8))

    assert index.sync(TEN[:9], split=Split(8)).deleted == 0
    assert len(contents(index)) == 12
    assert index.sync(TEN[:9], split=Split(8), delete_missing=DeleteMissing(limit=0.3)).deleted == 2
    assert sorted(contents(index)) == [f"d{n}" for n in range(9)]


def test_a_document_with_the_name_of_a_window_is_deleted(index):
    """What decides is the payload, not the id."""
    index.ingest([*TEN, {"id": "d1#window-1", "text": "x"}])

    assert index.sync(TEN, delete_missing=True).deleted == 1
    assert "d1#window-1" not in contents(index)


def test_more_than_the_limit_is_not_deleted(index):
    """The message says how many, and how to raise it."""
    index.ingest(TEN)

    message = deletion_refused(index, iter(TEN[:7]))

    assert message == (
        "3 documents of the collection, 30.0%, would be deleted because the source lacks them, and the limit is 20%: "
        "nothing was deleted; raise it with --delete-limit (DeleteMissing(limit=…))"
    )
    assert index.sync(TEN[:8], delete_missing=True).deleted == 2
    with pytest.raises(ValueError, match="a share from 0 to 1, not 20"):
        DeleteMissing(limit=20)


def test_new_documents_do_not_raise_the_limit(index):
    """As with a wrong id field, when all ids of the source are new, and all former documents are missing."""
    index.sync(TEN[:2])

    message = deletion_refused(index, [row | {"id": f"new {row['id']}"} for row in TEN[:8]])

    assert message.startswith("2 documents of the collection, 100.0%, would be deleted")


def test_what_others_store_after_the_question_is_not_deleted(index):
    """Only the documents that were counted and confirmed are deleted."""
    index.sync(TEN)

    def confirm(_missing: Missing) -> bool:
        index.ingest(documents(("other", "oo", 0)))
        return True

    assert index.sync(TEN[:9], delete_missing=DeleteMissing(confirm=confirm)).deleted == 1
    assert sorted(contents(index)) == [*(row["id"] for row in TEN[:9]), "other"]


def test_an_empty_source_deletes_nothing(index):
    """By its name."""
    index.ingest(TEN)
    message = deletion_refused(index, [], DeleteMissing(1.0, source="books.jsonl"))
    assert message.startswith("books.jsonl has no documents: nothing was deleted; ")


def test_an_unreadable_document_may_be_any_of_the_collection(index):
    """So that nothing is deleted; one whose id is known is not missing, and does not prevent the deletion."""
    index.ingest(TEN)
    message = deletion_refused(index, [*TEN[:9], DocumentError("not JSON", value=b"{")])
    assert "has documents that cannot be read, whose ids are not known (record 10: not JSON)" in message

    report = index.sync([*TEN[:8], {"id": "d8"}], delete_missing=True)

    assert (report.deleted, report.refused_total, sorted(contents(index))) == (1, 1, [f"d{n}" for n in range(9)])


def test_a_gap_in_the_source_deletes_nothing(index):
    """Such as a folder that cannot be read."""
    index.ingest(TEN)
    message = deletion_refused(index, TEN[:9], DeleteMissing(gap=lambda: "skipped 1 unreadable"))
    assert message.startswith("the source was not read completely (skipped 1 unreadable): nothing was deleted")


@pytest.mark.parametrize("error", [OSError("half"), KeyboardInterrupt()])
def test_a_source_that_ends_with_an_error_deletes_nothing(index, error):
    """What was read before is stored."""
    index.ingest(TEN)

    def half() -> Iterator[Any]:
        yield {"id": "d0", "text": "new"}
        raise error

    with pytest.raises((IngestFailed, IngestInterrupted)):
        index.sync(half(), batch=1, delete_missing=everything())

    assert len(contents(index)) == 10


def test_the_deletion_can_be_declined(index):
    """The question has the counts; without missing documents there is none."""
    index.ingest(TEN)
    asked: list[Missing] = []

    def decline(missing: Missing) -> bool:
        asked.append(missing)
        return False

    assert index.sync(TEN, delete_missing=DeleteMissing(confirm=decline)).deleted == 0
    assert asked == []
    assert index.sync(TEN[:9], delete_missing=DeleteMissing(confirm=decline)).deleted == 0
    assert asked == [Missing(1, 1, 10)]
    assert len(contents(index)) == 10


def test_a_document_that_the_store_refuses_is_not_missing(index, model):
    """Its last version stays, and the encoder sees the new one again in the next sync."""
    index.sync(TEN)
    bad = [*TEN[:9], {"id": "d9", "text": "text 9", "n": 2**70}]

    for _ in range(2):
        report = index.sync(bad, delete_missing=everything())
        assert (report.refused_total, report.unchanged, report.deleted) == (1, 9, 0)
        assert index.get(["d9"])[0].payload["n"] == 9


def test_a_plan_counts_the_changes_and_changes_nothing(index, model):
    """With the time of encoding all texts by that of a sample, here one second for each text."""
    index.sync(TEN)
    before = contents(index)
    source = [
        *TEN[:6],
        *documents(("d6", "new text", 6), ("d7", "text 7", 70), ("new", "n" * 8, 1)),
        {"id": "d8"},
    ]

    plan = index.plan_sync(source)

    counts = (plan.new, plan.text_changed, plan.payload_changed, plan.unchanged, plan.missing, plan.refused)
    assert counts == (1, 1, 1, 6, 1, 1)
    assert plan.seconds > 0
    assert contents(index) == before


def test_the_time_is_estimated_from_a_sample(index, model):
    """64 of 640 equal texts, at one second for each call of the clock between them."""
    texts = documents(*((f"d{n}", "same size", n) for n in range(640)))
    ticks = iter([0.0, 5.0, 100.0, 102.0])
    options = indexes.IngestOptions(batch=100)

    plan = plan_sync(
        index.store, texts, index._encoders(["dense"]), index._comparison(), options, clock=lambda: next(ticks)
    )

    assert plan.seconds == pytest.approx(5.0 + 2.0 * 10)
    assert len(model.texts) == 65
