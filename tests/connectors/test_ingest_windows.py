"""Stale windows: the store is read for them only where it may contain windows, and none are ever left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watched import Watched

from st_connectors.chunks import is_window_id
from st_connectors.errors import Permanent
from st_connectors.ingest import IngestFailed, IngestOptions, ingest, windows
from st_connectors.store import Parts, Record


class Counted(Watched):
    """A store that counts the calls of each operation."""

    def __init__(self) -> None:
        super().__init__(fields={})
        self.counts: Counter[str] = Counter()

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        self.counts["get"] += 1
        return super().get(ids, parts=parts)

    def upsert(self, records: Sequence[Record]) -> list:
        self.counts["upsert"] += 1
        return super().upsert(records)

    def scan(self, **options):
        self.counts["scan"] += 1
        return super().scan(**options)


def tens(text: str) -> list[tuple[int, int]]:
    """Windows of ten characters."""
    return [(start, min(start + 10, len(text))) for start in range(0, max(len(text), 1), 10)]


PLAIN = IngestOptions(batch=2)
SPLIT = IngestOptions(batch=2, spans=tens)
SHORT = [{"id": f"d{number}", "text": "short"} for number in range(10)]


def stored(store: Counted) -> dict[str, str]:
    return {record.id: record.payload["text"] for record in store.scan()}


@pytest.mark.parametrize("options", [PLAIN, SPLIT], ids=["plain", "split"])
@pytest.mark.parametrize("before", [0, 1, 10], ids=["empty", "one", "ten"])
def test_a_collection_without_windows_is_read_once(options, before):
    """One scan of ids for the whole ingest, no ``get`` for any batch."""
    store = Counted()
    ingest(store, SHORT[:before], [], options=PLAIN)
    store.counts.clear()

    report = ingest(store, SHORT, [], options=options)

    assert report.confirmed == 10
    assert store.counts == {"upsert": 5, "scan": 1}


def test_a_large_collection_without_windows_is_read_a_few_times(monkeypatch):
    """Batches are looked up until as many ids have been read, in scans that double; then nothing is read."""
    monkeypatch.setattr(windows, "PAGE", 4)
    store = Counted()
    ingest(store, [{"id": f"old{number}", "text": "x"} for number in range(30)], [], options=PLAIN)
    store.counts.clear()

    ingest(store, [{"id": f"d{number}", "text": "x"} for number in range(100)], [], options=PLAIN)

    assert store.counts == {"upsert": 50, "get": 4, "scan": 4}


@pytest.mark.parametrize("page", [1, 4, 1000])
def test_windows_anywhere_in_a_collection_are_replaced(monkeypatch, page):
    """However few ids are read at a time, a document that was split and is not any more leaves no window behind."""
    monkeypatch.setattr(windows, "PAGE", page)
    store = Counted()
    ingest(store, SHORT, [], options=PLAIN)
    ingest(store, [{"id": "d7", "text": "x" * 45}], [], options=SPLIT)
    assert sum(map(is_window_id, stored(store))) == 4

    ingest(store, SHORT, [], options=PLAIN)

    assert stored(store) == {document["id"]: "short" for document in SHORT}


def test_windows_of_the_same_ingest_are_replaced():
    """A document that occurs twice, long and then short, in two batches of one ingest into an empty collection."""
    store = Counted()

    ingest(store, [{"id": "a", "text": "x" * 45}, *SHORT, {"id": "a", "text": "y"}], [], options=SPLIT)

    assert stored(store) == {"a": "y", **{document["id"]: "short" for document in SHORT}}


LENGTHS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1, 15, 25])), max_size=8)


@given(runs=st.lists(st.tuples(st.booleans(), LENGTHS), max_size=4), page=st.sampled_from([1, 2, 1000]))
@settings(max_examples=60, deadline=None)
def test_no_order_of_ingests_leaves_a_stale_window(runs, page):
    """Whatever was split before, the collection contains the windows of the last text of each document alone."""
    store = Counted()
    expected: dict[str, list[str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "PAGE", page)
        for splits, documents in runs:
            texts = [{"id": name, "text": name * length} for name, length in documents]
            ingest(store, texts, [], options=SPLIT if splits else PLAIN)
            for document in texts:
                text = document["text"]
                spans = tens(text) if splits else [(0, len(text))]
                expected[document["id"]] = [text[start:end] for start, end in spans]

    records = stored(store)
    assert records == {
        name if number == 0 else f"{name}#window-{number}": text
        for name, texts in expected.items()
        for number, text in enumerate(texts)
    }


class Stopping(Counted):
    """A store of which all writes fail after a number of them, until it is repaired."""

    left = 1000

    def upsert(self, records: Sequence[Record]) -> list:
        self._write()
        return super().upsert(records)

    def delete(self, ids: Sequence[str]) -> None:
        self._write()
        super().delete(ids)

    def _write(self) -> None:
        if not self.left:
            raise Permanent("gone", store="fake", operation="write")
        self.left -= 1


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_an_interruption_leaves_no_stale_window(writes):
    """Between any two requests: the next ingest of the document still knows that the windows exist."""
    store = Stopping()
    ingest(store, [{"id": "a", "text": "x" * 45}], [], options=SPLIT)
    store.left = writes
    with suppress(IngestFailed):
        ingest(store, [{"id": "a", "text": "y" * 15}], [], options=SPLIT)
    store.left = 1000

    ingest(store, [{"id": "a", "text": "y" * 15}], [], options=SPLIT)

    assert stored(store) == {"a": "y" * 10, "a#window-1": "y" * 5}
