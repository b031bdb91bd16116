"""Split documents into windows, and find stored windows that become stale when a document is replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from st_connectors.chunks import CHUNK_KEY, chunk_payload, is_window_id, window_count, window_id
from st_connectors.ingest.documents import Document
from st_connectors.store import MAX_ID_BYTES, Parts, Store

__all__ = ["Prepared", "Spans", "StaleWindows", "split_document"]

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""A function from a text to the character offsets (start, end) of its windows, one window for a short text."""

PAGE = 1000
"""The number of ids per page when a collection is searched for windows."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document, its position among the documents of the ingest, counted from 0, and its windows.

    ``size`` is the estimated size of the payloads of its windows in bytes.
    """

    position: int
    document: Document
    windows: tuple[Document, ...]
    size: int = 0


def split_document(document: Document, text_key: str, spans: Sequence[tuple[int, int]]) -> tuple[Document, ...]:
    """Return the windows of a document, or the document itself if it fits into one window."""
    if len(spans) <= 1:
        return (document,)
    return tuple(
        Document(
            window_id(document.id, number),
            document.text[start:end],
            {
                **document.payload,
                text_key: document.text[start:end],
                CHUNK_KEY: chunk_payload(document.id, number, len(spans), start, end),
            },
            document.place,
        )
        for number, (start, end) in enumerate(spans)
    )


class StaleWindows:
    """Find stored windows that are stale after the documents of one ingest are stored.

    Safe for use from several threads, if batches with equal ids are passed one after the other.

    Windows are looked up only while the collection may contain any. To find out, its ids are scanned up to a limit,
    which is one page at first and doubles after as many batches were looked up. A small collection is scanned once per
    ingest; for a large one, the scans cost at most a few times as much as the lookups of every batch.
    """

    def __init__(self, store: Store, *, are_splitting: bool) -> None:
        """Store the arguments; ``are_splitting`` states whether the documents of the ingest are split."""
        self._store = store
        # The payload of each window contains the number of windows, so that one window per document is looked up. Every
        # document has a window 0, but only split documents have a window 1: if this ingest splits nothing, window 1 is
        # looked up, which reads almost no records.
        self._number = 0 if are_splitting else 1
        self._lock = threading.Lock()
        self._exist: bool | None = None
        self._lookups = 0
        self._next_scan = 0
        self._written = 0

    def find(self, documents: Sequence[Prepared]) -> list[str]:
        """Return the ids of stale windows, of documents stored before this batch or earlier in this batch.

        Must be called for every batch before it is written.
        """
        counts = {item.document.id: len(item.windows) for item in documents}
        if not counts:
            return []
        with self._lock:
            may_exist = self._may_exist()
        longest = self._look_up(counts) if may_exist else {}
        for item in documents:
            longest[item.document.id] = max(longest.get(item.document.id, 1), len(item.windows))
        with self._lock:
            self._written += len(documents)
            if any(count > 1 for count in longest.values()):
                self._exist = True
        stale = [
            window_id(parent, number) for parent, most in longest.items() for number in range(counts[parent], most)
        ]
        return [name for name in stale if name not in counts]  # ids of documents may have this form too

    def _look_up(self, parents: Iterable[str]) -> dict[str, int]:
        """Return the stored number of windows by document id."""
        names = {window_id(parent, self._number): parent for parent in parents}
        names = {name: parent for name, parent in names.items() if len(name.encode()) <= MAX_ID_BYTES}
        records = self._store.get(list(names), parts=Parts.PAYLOAD)
        return {names[record.id]: window_count(record.payload) for record in records}

    def _may_exist(self) -> bool:
        """Return whether the collection may contain windows."""
        if self._exist is None and self._lookups >= self._next_scan:
            if self._next_scan == 0:
                self._store.refresh()  # makes writes of an interrupted ingest visible to the scan
            self._next_scan = max(1, 2 * self._next_scan)
            self._exist = self._scan(PAGE * self._next_scan + self._written)
        if self._exist is not False:
            self._lookups += 1
        return self._exist is not False

    def _scan(self, limit: int) -> bool | None:
        """Return whether any id is that of a window; None if the first ``limit`` ids do not suffice to decide."""
        seen = 0
        for record in islice(self._store.scan(parts=Parts.NONE, batch=PAGE), limit + 1):
            if is_window_id(record.id):
                return True
            seen += 1
        return False if seen <= limit else None
