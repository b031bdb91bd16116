"""Documents become batches of encoded records; no store in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from st_connectors.chunks import CHUNK_KEY, chunk_payload, is_window_id, window_id
from st_connectors.ingest.documents import Document, DocumentError, as_document, size_of
from st_connectors.ingest.report import Refusal
from st_connectors.store import Record, Vector
from st_connectors.vectorise import FieldEncoder
from st_core.errors import InputTooLong

__all__ = ["Batch", "Prepared", "Spans", "encoded", "gathered", "prepared"]

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""Where the windows of a text start and end, in characters; one window for a text that needs no splitting."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document taken from position ``position`` of the source, with the ids, texts and payloads of its windows."""

    position: int
    document: Document
    windows: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents to be written together, what was refused among them, and, once encoded, their records.

    ``owners`` gives for each record the index of its document in ``documents``.
    """

    documents: tuple[Prepared, ...]
    refused: tuple[Refusal, ...]
    records: tuple[Record, ...] = ()
    owners: tuple[int, ...] = ()
    cut: int = 0

    @property
    def read(self) -> int:
        """How many documents of the source it accounts for."""
        return len(self.documents) + len(self.refused)


def prepared(position: int, value: object, text_key: str, spans: Spans | None) -> Prepared | Refusal:
    """A document ready for encoding, or why it cannot go in."""
    try:
        document = as_document(value, text_key)
    except DocumentError as error:
        return Refusal(position, error.id, str(error))
    if spans is None:
        return Prepared(position, document, (document,))
    if is_window_id(document.id):
        return Refusal(position, document.id, "ids that end in '#window-' and a number are reserved for windows")
    return Prepared(position, document, _windows(document, text_key, spans(document.text)))


def _windows(document: Document, text_key: str, spans: Sequence[tuple[int, int]]) -> tuple[Document, ...]:
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
        )
        for number, (start, end) in enumerate(spans)
    )


def gathered(source: Iterable[object], text_key: str, spans: Spans | None, *, count: int, size: int) -> Iterator[Batch]:
    """Batches of up to ``count`` documents and about ``size`` bytes, windows kept with their document.

    Where the source raises, what it gave before is still yielded, then the error goes on.
    """
    documents: list[Prepared] = []
    refused: list[Refusal] = []
    taken = 0
    try:
        for position, value in enumerate(source):
            item = prepared(position, value, text_key, spans)
            if isinstance(item, Refusal):
                refused.append(item)
            else:
                documents.append(item)
                taken += sum(size_of(window.payload) for window in item.windows)
            if len(documents) + len(refused) >= count or taken >= size:
                yield Batch(tuple(documents), tuple(refused))
                documents, refused, taken = [], [], 0
    except Exception:
        if documents or refused:
            yield Batch(tuple(documents), tuple(refused))
        raise
    if documents or refused:
        yield Batch(tuple(documents), tuple(refused))


def encoded(batch: Batch, encoders: Sequence[FieldEncoder]) -> Batch:
    """The batch with its records; documents that an encoder refuses are refused by name, the others go on."""
    documents, vectors, refused = _encode(batch.documents, encoders)
    windows = [window for prepared in documents for window in prepared.windows]
    names = [encoder.field for encoder in encoders]
    columns = zip(*vectors, strict=True) if vectors else iter([()] * len(windows))
    records = tuple(
        Record(window.id, dict(zip(names, row, strict=True)), window.payload)
        for window, row in zip(windows, columns, strict=True)
    )
    owners = tuple(chain.from_iterable([index] * len(item.windows) for index, item in enumerate(documents)))
    return replace(
        batch,
        documents=documents,
        refused=batch.refused + refused,
        records=records,
        owners=owners,
        cut=sum(_is_cut(item, encoders) for item in documents),
    )


_Encoded = tuple[tuple[Prepared, ...], list[list[Vector]], tuple[Refusal, ...]]


def _encode(documents: tuple[Prepared, ...], encoders: Sequence[FieldEncoder]) -> _Encoded:
    """Documents, one list of vectors per encoder, and refusals: a batch that an encoder refuses is halved until the culprit is alone."""
    texts = [window.text for item in documents for window in item.windows]
    if not texts:
        return (), [[] for _ in encoders], ()
    try:
        return documents, [encoder.documents(texts) for encoder in encoders], ()
    except (InputTooLong, ValueError, TypeError) as error:
        if len(documents) == 1:
            item = documents[0]
            reason = f"the encoder refused it: {error}"
            return (), [[] for _ in encoders], (Refusal(item.position, item.document.id, reason),)
    middle = len(documents) // 2
    left, right = _encode(documents[:middle], encoders), _encode(documents[middle:], encoders)
    joined = [first + second for first, second in zip(left[1], right[1], strict=True)]
    return left[0] + right[0], joined, left[2] + right[2]


def _is_cut(item: Prepared, encoders: Sequence[FieldEncoder]) -> bool:
    return any(
        encoder.cuts is not None and encoder.cuts(window.text) for encoder in encoders for window in item.windows
    )
