"""Read and encode documents in the thread of the caller and write them in another, with a bounded queue of batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from st_connectors._matching import values_at
from st_connectors.arguments import set_ints
from st_connectors.ingest.documents import Document
from st_connectors.ingest.encode import Batch, encode_batch, gather_batches
from st_connectors.ingest.report import IngestFailed, IngestInterrupted, IngestReport, Refusal, Tally
from st_connectors.ingest.seen import SeenIds
from st_connectors.ingest.windows import Spans, StaleWindows
from st_connectors.store import Rejected, Store
from st_connectors.vectorise import FieldEncoder

__all__ = ["IngestOptions", "Progress", "check_documents", "ingest"]

Progress = Callable[[IngestReport], None]
"""A callback that receives the report so far after every batch, in the writing thread."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How documents are batched and written.

    A batch ends at ``batch`` documents or about ``batch_bytes`` of text and payload; at most ``ahead`` encoded batches
    wait for the store. ``spans`` splits long texts into windows; if it is None, models truncate them, and the report
    counts the truncated documents. The report contains at most ``max_refused`` refusals and counts the rest;
    ``on_refused`` receives every refusal, in the writing thread, as soon as its batch is written.
    """

    batch: int = 512
    batch_bytes: int = 4 * 1024 * 1024
    ahead: int = 2
    spans: Spans | None = None
    text_key: str = "text"
    max_refused: int = 1000
    on_refused: Callable[[Refusal], None] | None = None

    def __post_init__(self) -> None:
        set_ints(self, {"batch": 1, "batch_bytes": 1, "ahead": 1})


def ingest(
    store: Store,
    documents: Iterable[object],
    encoders: Sequence[FieldEncoder],
    *,
    options: IngestOptions | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Encode documents and store them in order; of several documents with the same id, the last one is stored.

    ``documents`` is read once, in the thread of the caller, batch by batch. Values that are not documents, and
    documents that the store or an encoder refuses, are reported; all other documents are stored. The report counts
    documents that were replaced by a later one, which takes 8 bytes of memory per id. Raises
    :class:`IngestFailed` if the source, an encoder or the store fails, and :class:`IngestInterrupted` on Ctrl-C; both
    contain the report up to that point.
    """
    check_documents(documents)
    chosen = options or IngestOptions()
    tally = Tally(chosen.max_refused)
    stale = StaleWindows(store, are_splitting=chosen.spans is not None)
    run = _Run(store, tally, stale, SeenIds(), chosen, progress)
    with ThreadPoolExecutor(1, "ingest-writer") as writer:
        waiting: deque[Future[None]] = deque()
        try:
            _feed(run, writer, waiting, documents, encoders)
            store.refresh()
        except KeyboardInterrupt as error:
            _settle(writer, waiting)
            raise IngestInterrupted(tally.report()) from error
        except Exception as error:
            if not _has_failed(waiting):
                wait(waiting)
            _settle(writer, waiting)
            raise IngestFailed(tally.report(), error) from error
    return tally.report()


def check_documents(documents: object) -> None:
    """Raise TypeError for a value that is no iterable of documents: one document, a text, or a table.

    A table is refused because the elements of an iteration are its columns.
    """
    if hasattr(documents, "__dataframe__"):
        how = "its rows are df.to_dict('records') in pandas, df.to_dicts() in polars and table.to_pylist() in pyarrow"
        raise TypeError(
            f"documents must be an iterable of mappings or Documents, not {type(documents).__name__}: {how}"
        )
    if isinstance(documents, str | bytes | Mapping | Document) or not isinstance(documents, Iterable):
        raise TypeError(f"documents must be an iterable of mappings or Documents, not {type(documents).__name__}")


@dataclass(frozen=True, slots=True)
class _Run:
    store: Store
    tally: Tally
    stale: StaleWindows
    seen: SeenIds
    options: IngestOptions
    progress: Progress | None

    def write(self, batch: Batch) -> None:
        """Write one batch and count it; only the writing thread calls this."""
        stale = self.stale.find(batch.documents)
        rejected = self.store.upsert(batch.records) if batch.records else []
        if stale:
            self.store.delete(stale)
        report = self._count(batch, rejected)
        self.tally.add(report)
        if self.options.on_refused is not None:
            for refusal in report.refused:
                self.options.on_refused(refusal)
        if self.progress is not None:
            self.progress(self.tally.report())

    def _count(self, batch: Batch, rejected: Sequence[Rejected]) -> IngestReport:
        """Return the report of a batch that was written."""
        refused = tuple(sorted((*batch.refused, *_refusals(batch, rejected)), key=lambda refusal: refusal.position))
        confirmed = _confirmed(batch, refused)
        return IngestReport(
            read=batch.read,
            confirmed=len(confirmed),
            records=len(batch.records) - len(rejected),
            refused=refused,
            refused_total=len(refused),
            cut=batch.cut,
            split=sum(len(item.windows) > 1 for item in batch.documents),
            replaced=self.seen.add([document.id for document in confirmed]),
            filled={name: _count_filled(confirmed, name) for name in self.store.schema.filterable},
        )


def _feed(
    run: _Run,
    writer: ThreadPoolExecutor,
    waiting: deque[Future[None]],
    documents: Iterable[object],
    encoders: Sequence[FieldEncoder],
) -> None:
    """Pass batches to the writing thread, never more than ``ahead`` at a time, and raise its errors."""
    options = run.options
    batches = gather_batches(documents, options.text_key, options.spans, count=options.batch, size=options.batch_bytes)
    for batch in batches:
        ready = encode_batch(batch, encoders)
        while len(waiting) >= options.ahead:
            waiting[0].result()
            waiting.popleft()
        waiting.append(writer.submit(run.write, ready))
    while waiting:
        waiting[0].result()
        waiting.popleft()


def _has_failed(waiting: Iterable[Future[None]]) -> bool:
    """Return whether writing failed; if not, the batches that are already encoded can still be stored."""
    return any(future.done() and future.exception() is not None for future in waiting)


def _settle(writer: ThreadPoolExecutor, waiting: deque[Future[None]]) -> None:
    """Wait for the batch that is being written, and cancel the batches whose writing has not started."""
    for future in waiting:
        future.cancel()
    writer.shutdown(wait=True)


def _refusals(batch: Batch, rejected: Sequence[Rejected]) -> list[Refusal]:
    """Return one refusal for each document with a rejected record."""
    first: dict[int, Rejected] = {}
    for item in rejected:
        first.setdefault(batch.owners[item.position], item)
    refusals = []
    for owner, item in first.items():
        prepared = batch.documents[owner]
        reason = item.error.message if len(prepared.windows) == 1 else f"window {item.id!r}: {item.error.message}"
        document = prepared.document
        refusals.append(Refusal(prepared.position, document.id, reason, type(item.error), document.place, document))
    return refusals


def _confirmed(batch: Batch, refused: Sequence[Refusal]) -> list[Document]:
    """Return the documents of a batch that were stored completely."""
    positions = {refusal.position for refusal in refused}
    return [item.document for item in batch.documents if item.position not in positions]


def _count_filled(documents: Sequence[Document], name: str) -> int:
    """Return the number of documents with a value in a filterable field; null and an empty list are no values."""
    return sum(any(value is not None for value in values_at(document.payload, name)) for document in documents)
