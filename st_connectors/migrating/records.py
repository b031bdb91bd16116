"""The records that the new collection of a migration should contain, computed from those of the present one.

Windows stay as they are, or documents are split anew: the windows of a document contain every character of its text, so
that it is known again when all of them are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from st_connectors.chunks import CHUNK_KEY, SYNC_KEY, parent_of, window_count, window_id, window_number
from st_connectors.ingest.documents import Document, DocumentError, as_document
from st_connectors.ingest.windows import Spans, split_document
from st_connectors.migrating.pointer import refusal
from st_connectors.store import Parts, Record, Store

__all__ = [
    "Convert",
    "Wanted",
    "read_windows",
    "same_documents",
    "same_windows",
    "split_anew",
    "texts_by_id",
    "texts_of",
    "without_marks",
]

MAX_READS = 3
"""The number of times that the windows of a document are read, because another program may be replacing them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record without the vectors that are to be computed, and the text to compute them from; None if unknown.

    If ``are_windows_known`` is False, the record has no position of a window: its document may be split in any way.
    """

    record: Record
    text: str | None
    are_windows_known: bool = True


Convert = Callable[[Sequence[Record], Mapping[str, str]], list[Wanted]]
"""A function from records of the present collection, and texts by document id for records that have none in their
payloads, to the records of the new collection."""


def same_windows(records: Sequence[Record], texts: Mapping[str, str], *, text_key: str) -> list[Wanted]:
    """Return the records as they are, without the hashes of a sync, which hold for other models."""
    return [Wanted(_without(record, SYNC_KEY), _text_of(record, texts, text_key)) for record in records]


def split_anew(
    records: Sequence[Record], texts: Mapping[str, str], *, text_key: str, spans: Spans, store: Store
) -> list[Wanted]:
    """Return the new windows of the documents whose first window is among the records, and nothing for other windows.

    ``store`` contains the further windows. Payloads have a text if those of the records have one.
    """
    wanted: list[Wanted] = []
    for windows in read_windows([each for each in records if _is_first(each)], store, Parts.PAYLOAD):
        record = without_marks(windows[0])
        stored = _whole_text(windows, text_key)
        text = texts.get(record.id) if stored is None else stored
        if text is None:
            wanted.append(Wanted(record, None, are_windows_known=False))
            continue
        document = Document(record.id, text, {**record.payload, text_key: text})
        for window in split_document(document, text_key, spans(text)):
            payload = dict(window.payload)
            if text_key not in record.payload:
                del payload[text_key]
            wanted.append(Wanted(Record(window.id, {}, payload), window.text))
    return wanted


def same_documents(
    records: Sequence[Record], texts: Mapping[str, str], *, text_key: str, stores: tuple[Store, Store], parts: Parts
) -> list[Wanted]:
    """Return the target's own windows of documents that are the same in both stores, and the source's of all others.

    ``stores`` are the source and the target.
    """
    source, target = stores
    firsts = [each for each in records if _is_first(each)]
    own = {
        each[0].id: each for each in read_windows(target.get([each.id for each in firsts], parts=parts), target, parts)
    }
    wanted: list[Wanted] = []
    for windows in read_windows(firsts, source, parts):
        present = own.get(windows[0].id, [])
        are_same = bool(present) and _document_of(present, text_key) == _document_of(windows, text_key)
        wanted += [
            Wanted(record if are_same else _without(record, SYNC_KEY), _text_of(record, texts, text_key))
            for record in (present if are_same else windows)
        ]
    return wanted


def read_windows(firsts: Sequence[Record], store: Store, parts: Parts) -> list[list[Record]]:
    """Return all windows of the documents with these first windows, in order; of an incomplete document all it has.

    A document that is deleted meanwhile is left out.
    """
    documents = [
        windows if _is_complete(windows) else _read_again(windows, store, parts)
        for windows in _with_further_windows(firsts, store, parts)
    ]
    return [windows for windows in documents if windows]


def _read_again(windows: list[Record], store: Store, parts: Parts) -> list[Record]:
    """Return the windows of a document once they are complete, or as they are in the end; [] if it was deleted."""
    for _ in range(MAX_READS - 1):
        firsts = store.get([windows[0].id], parts=parts)
        if not firsts:
            return []
        [windows] = _with_further_windows(firsts, store, parts)
        if _is_complete(windows):
            break
    return windows


def _is_first(record: Record) -> bool:
    """Return whether a record is the first window of its document, or the whole document."""
    return window_number(record.payload) == 0


def without_marks(record: Record) -> Record:
    """Return a record without the position of its window and the hashes of a sync."""
    return _without(record, CHUNK_KEY, SYNC_KEY)


def _without(record: Record, *keys: str) -> Record:
    if not any(key in record.payload for key in keys):
        return record
    return replace(record, payload={key: value for key, value in record.payload.items() if key not in keys})


def _chunk(record: Record) -> Mapping[str, Any]:
    chunk = record.payload.get(CHUNK_KEY)
    return chunk if isinstance(chunk, Mapping) else {}


def _text_of(record: Record, texts: Mapping[str, str], text_key: str) -> str | None:
    """Return the text of one window from its payload or else from the text of its document; None if neither has it."""
    stored = record.payload.get(text_key)
    if isinstance(stored, str):
        return stored
    whole = texts.get(parent_of(record.id, record.payload))
    chunk = _chunk(record)
    if whole is None or not chunk:
        return whole
    return whole[chunk["start"] : chunk["end"]] if chunk["end"] <= len(whole) else None


def _with_further_windows(firsts: Sequence[Record], store: Store, parts: Parts) -> list[list[Record]]:
    ids = [window_id(each.id, number) for each in firsts for number in range(1, window_count(each.payload))]
    further = {record.id: record for record in store.get(ids, parts=parts)} if ids else {}
    return [
        [
            first,
            *(
                further[name]
                for number in range(1, window_count(first.payload))
                if (name := window_id(first.id, number)) in further
            ),
        ]
        for first in firsts
    ]


def _is_complete(windows: Sequence[Record]) -> bool:
    """Return whether windows are all those of one version of a document."""
    count = window_count(windows[0].payload)
    return len(windows) == count and all(window_count(each.payload) == count for each in windows)


def _whole_text(windows: Sequence[Record], text_key: str) -> str | None:
    """Return the text of a document from its windows; None unless all are there and contain their text."""
    if not _is_complete(windows):
        return None
    parts: list[str] = []
    length = 0
    for window in windows:
        part, start = window.payload.get(text_key), int(_chunk(window).get("start", 0))
        if not isinstance(part, str) or start > length:
            return None
        parts.append(part[length - start :])
        length += len(parts[-1])
    return "".join(parts)


def _document_of(windows: Sequence[Record], text_key: str) -> tuple[str | None, dict[str, Any]]:
    """Return the text and the rest of the payload of a document, by which two versions of it are compared."""
    rest = {key: value for key, value in without_marks(windows[0]).payload.items() if key != text_key}
    return _whole_text(windows, text_key), rest


def texts_by_id(documents: Iterable[object], batch: int, text_key: str) -> Iterator[dict[str, str]]:
    """Yield the texts of documents by id, batch by batch; values that are no documents are skipped."""
    iterator = iter(documents)
    while values := list(islice(iterator, batch)):
        texts = {}
        for value in values:
            with suppress(DocumentError):
                document = as_document(value, text_key)
                texts[document.id] = document.text
        yield texts


def texts_of(wanted: Sequence[Wanted], text_key: str) -> list[str]:
    """Return the texts of records; raise Refused for the first record without one."""
    for each in wanted:
        if each.text is None:
            raise refusal(
                f"record {each.record.id!r} has no complete text under {text_key!r} in its payload, from which to "
                "compute new vectors: pass the source that has it (st-connectors migrate SOURCE, or documents=)"
            )
    return [each.text for each in wanted if each.text is not None]
