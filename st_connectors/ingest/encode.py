"""Collect documents in batches, split them and encode them to records, without a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

from st_connectors.chunks import is_window_id
from st_connectors.ingest.documents import Document, DocumentError, as_document, size_of
from st_connectors.ingest.report import Refusal, size_of_refused
from st_connectors.ingest.windows import Prepared, Spans, split_document
from st_connectors.store import JsonValue, Record, Vector
from st_connectors.vectorise import FieldEncoder, WrongCountError
from st_core.errors import InputTooLong

if TYPE_CHECKING:
    from st_core.engine.prepared import Prepared as Tokens

__all__ = ["Batch", "encode_batch", "gather_batches", "prepare"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents that are written together, the refused documents, and after encoding the records of the documents.

    ``owners`` contains, for each record, the index of its document in ``documents``. ``tokens`` contains, for each
    encoder, the tokens of the texts to encode, None where the encoder tokenizes them itself; ``token_count`` is their
    number, of all encoders together. ``truncated`` contains the positions of documents that an encoder truncates, and
    ``encode_seconds`` is the time in the encoders. The positions of the documents are from
    ``start`` up to, but not including, ``end``; those that are missing in between were confirmed before, or belong to
    the ``unchanged`` documents of a sync. ``renewed`` contains, by position, the records of documents that are written
    with their stored vectors. ``cursor`` is the state of the source after the last document, if the source has one.
    """

    documents: tuple[Prepared, ...]
    refused: tuple[Refusal, ...]
    start: int
    end: int
    cursor: JsonValue = None
    records: tuple[Record, ...] = ()
    owners: tuple[int, ...] = ()
    tokens: tuple[Tokens | None, ...] = ()
    token_count: int = 0
    truncated: frozenset[int] = frozenset()
    encode_seconds: float = 0.0
    renewed: Mapping[int, tuple[Record, ...]] = field(default_factory=dict)
    unchanged: int = 0

    @property
    def read(self) -> int:
        """The number of documents read from the source."""
        return len(self.documents) + len(self.refused) + self.unchanged

    @property
    def to_encode(self) -> tuple[Prepared, ...]:
        """The documents that are encoded, which are all but the renewed ones."""
        return tuple(item for item in self.documents if item.position not in self.renewed)


def prepare(position: int, value: object, text_key: str, spans: Spans | None) -> Prepared | Refusal:
    """Convert a value to a document and split it; return a refusal if the value is not a document.

    ``position`` is the number of the document in the ingest.
    """
    try:
        document = as_document(value, text_key)
    except DocumentError as error:
        place = value.place if isinstance(value, Document) else error.place
        original = error.value if isinstance(value, DocumentError) else value
        return Refusal(position, error.id, error.reason, type(error), place, original, "read")
    if spans is not None and is_window_id(document.id):
        reason = "ids that end in '#window-' and a number are reserved for windows"
        return Refusal(position, document.id, reason, DocumentError, document.place, document, "split")
    windows = (document,) if spans is None else split_document(document, text_key, spans(document.text))
    try:
        size = sum(size_of(window.payload) for window in windows)
    except RecursionError:
        return Refusal(position, document.id, _TOO_DEEP, DocumentError, document.place, document, "read")
    return Prepared(position, document, windows, size)


_TOO_DEEP = "the payload is nested too deeply: make it flatter, or store the part as text"


def gather_batches(
    source: Iterable[tuple[int, object]],
    text_key: str,
    spans: Spans | None,
    *,
    count: int,
    size: int,
    cursor: Callable[[], JsonValue] = lambda: None,
) -> Iterator[Batch]:
    """Yield batches of up to ``count`` documents and about ``size`` bytes; all windows of a document are in one batch.

    The ids of a batch are distinct, so that a document is not lost if the store refuses a later one with its id.
    ``source`` yields values with their positions, and ``cursor`` returns its state after the last of them. If the
    source raises an error, the documents before the error are yielded first.
    """
    gathered = _Gathered()
    try:
        for position, value in source:
            item = prepare(position, value, text_key, spans)
            if isinstance(item, Prepared) and item.document.id in gathered.ids:
                yield gathered.batch(None)
                gathered = _Gathered()
            gathered.add(item)
            if gathered.count >= count or gathered.size >= size:
                yield gathered.batch(cursor())
                gathered = _Gathered()
    except Exception:
        if gathered.count:
            yield gathered.batch(None)
        raise
    if gathered.count:
        yield gathered.batch(cursor())


class _Gathered:
    """The documents of a batch that is not complete yet."""

    def __init__(self) -> None:
        self._items: list[Prepared | Refusal] = []
        self.ids: set[str] = set()
        self.size = 0

    @property
    def count(self) -> int:
        return len(self._items)

    def add(self, item: Prepared | Refusal) -> None:
        self._items.append(item)
        if isinstance(item, Prepared):
            self.ids.add(item.document.id)
            self.size += item.size
        else:
            self.size += size_of_refused(item.document)

    def batch(self, cursor: JsonValue) -> Batch:
        return Batch(
            tuple(item for item in self._items if isinstance(item, Prepared)),
            tuple(item for item in self._items if isinstance(item, Refusal)),
            self._items[0].position,
            self._items[-1].position + 1,
            cursor,
        )


def encode_batch(batch: Batch, encoders: Sequence[FieldEncoder]) -> Batch:
    """Return the batch with its records; a document that an encoder refuses becomes a refusal.

    Renewed documents are not encoded, and come after the others.
    """
    began = time.perf_counter()
    renewed = tuple(item for item in batch.documents if item.position in batch.renewed)
    documents, vectors, refused = _encode(batch.to_encode, encoders, batch.tokens or (None,) * len(encoders))
    windows = [window for item in documents for window in item.windows]
    names = [encoder.field for encoder in encoders]
    rows = zip(*vectors, strict=True) if vectors else iter([()] * len(windows))
    records = tuple(
        Record(window.id, dict(zip(names, row, strict=True)), window.payload)
        for window, row in zip(windows, rows, strict=True)
    )
    written = documents + renewed
    owners = tuple(chain.from_iterable([index] * len(item.windows) for index, item in enumerate(written)))
    return replace(
        batch,
        documents=written,
        refused=batch.refused + refused,
        records=(*records, *chain.from_iterable(batch.renewed[item.position] for item in renewed)),
        owners=owners,
        tokens=(),
        encode_seconds=time.perf_counter() - began,
    )


_Encoded = tuple[tuple[Prepared, ...], list[list[Vector]], tuple[Refusal, ...]]


def _encode(
    documents: tuple[Prepared, ...], encoders: Sequence[FieldEncoder], tokens: Sequence[Tokens | None]
) -> _Encoded:
    """Return documents, one list of vectors per encoder, and refusals; ``tokens`` are those for each encoder.

    A batch that an encoder refuses is halved until the refused document is alone; its texts are tokenized again.
    """
    texts = [window.text for item in documents for window in item.windows]
    if not texts:
        return (), [[] for _ in encoders], ()
    try:
        return documents, [each.documents(texts, its) for each, its in zip(encoders, tokens, strict=True)], ()
    except WrongCountError:
        raise  # which vector belongs to which text is unknown, for this batch and for all others
    except (InputTooLong, ValueError, TypeError) as error:
        if len(documents) == 1:
            return (), [[] for _ in encoders], (_refuse(documents[0], error),)
    middle, unknown = len(documents) // 2, (None,) * len(encoders)
    left, right = (_encode(half, encoders, unknown) for half in (documents[:middle], documents[middle:]))
    vectors = [first + second for first, second in zip(left[1], right[1], strict=True)]
    return left[0] + right[0], vectors, left[2] + right[2]


def _refuse(item: Prepared, error: Exception) -> Refusal:
    reason = f"the encoder refused it: {error}"
    document = item.document
    return Refusal(item.position, document.id, reason, type(error), document.place, document, "encode")
