"""Reading and encoding in the caller's thread, writing in another, a bounded number of batches between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from st_connectors.arguments import check_int
from st_connectors.chunks import window_count, window_id
from st_connectors.ingest.documents import Document
from st_connectors.ingest.prepare import Batch, Spans, encoded, gathered
from st_connectors.ingest.report import IngestFailed, IngestInterrupted, IngestReport, Refusal, Tally
from st_connectors.store import MAX_ID_BYTES, Parts, Rejected, Store
from st_connectors.vectorise import FieldEncoder

__all__ = ["IngestOptions", "Progress", "ingest"]

Progress = Callable[[IngestReport], None]
"""Called with the count so far after every batch, from the writing thread."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How documents are put together and written.

    A batch ends at ``batch`` documents or about ``batch_bytes`` of text and payload; at most ``ahead`` encoded batches wait for the store.
    ``spans`` splits long texts into windows; without it they are cut where a model cuts, and counted. ``max_refused`` refusals are kept in full.
    """

    batch: int = 512
    batch_bytes: int = 4 * 1024 * 1024
    ahead: int = 2
    spans: Spans | None = None
    text_key: str = "text"
    max_refused: int = 1000

    def __post_init__(self) -> None:
        for name in ("batch", "batch_bytes", "ahead"):
            check_int(getattr(self, name), 1, name)


def ingest(
    store: Store,
    documents: Iterable[object],
    encoders: Sequence[FieldEncoder],
    *,
    options: IngestOptions | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Encode documents and put them into a store, in order, the last of equal ids winning.

    ``documents`` is read once, in the caller's thread, a batch at a time. What the store, an encoder or the form of a document refuses is reported and
    the rest goes in. Raises :class:`IngestFailed` where the source, an encoder or the store breaks, and :class:`IngestInterrupted` on Ctrl-C; both
    carry the report of what was confirmed until then.
    """
    if isinstance(documents, str | bytes | Mapping | Document) or not isinstance(documents, Iterable):
        raise TypeError(f"documents are an iterable of mappings or Documents, not {type(documents).__name__}")
    chosen = options or IngestOptions()
    tally = Tally(chosen.max_refused)
    run = _Run(store, tally, chosen, progress)
    with ThreadPoolExecutor(1, "ingest-writer") as writer:
        waiting: deque[Future[None]] = deque()
        try:
            _feed(run, writer, waiting, documents, encoders)
            store.refresh()
        except KeyboardInterrupt as error:
            _settle(writer, waiting)
            raise IngestInterrupted(tally.report()) from error
        except Exception as error:
            if not _broken(waiting):
                wait(waiting)
            _settle(writer, waiting)
            raise IngestFailed(tally.report(), error) from error
    return tally.report()


@dataclass(frozen=True, slots=True)
class _Run:
    store: Store
    tally: Tally
    options: IngestOptions
    progress: Progress | None

    def write(self, batch: Batch) -> None:
        """Write one batch and count what was confirmed; runs in the writing thread alone."""
        stale = _stale_windows(self.store, batch, told_by=0 if self.options.spans is not None else 1)
        rejected = self.store.upsert(batch.records) if batch.records else []
        if stale:
            self.store.delete(stale)
        refused = (*batch.refused, *_refusals(batch, rejected))
        self.tally.add(
            IngestReport(
                read=batch.read,
                confirmed=batch.read - len(refused),
                records=len(batch.records) - len(rejected),
                cut=batch.cut,
                split=sum(len(item.windows) > 1 for item in batch.documents),
            ),
            refused,
        )
        if self.progress is not None:
            self.progress(self.tally.report())


def _feed(
    run: _Run,
    writer: ThreadPoolExecutor,
    waiting: deque[Future[None]],
    documents: Iterable[object],
    encoders: Sequence[FieldEncoder],
) -> None:
    """Hand batch after batch to the writing thread, never more than ``ahead`` of them, and meet its errors here."""
    options = run.options
    batches = gathered(documents, options.text_key, options.spans, count=options.batch, size=options.batch_bytes)
    for batch in batches:
        ready = encoded(batch, encoders)
        while len(waiting) >= options.ahead:
            waiting[0].result()
            waiting.popleft()
        waiting.append(writer.submit(run.write, ready))
    while waiting:
        waiting[0].result()
        waiting.popleft()


def _broken(waiting: Iterable[Future[None]]) -> bool:
    """Whether writing itself failed; if the source or an encoder did, what is already encoded can still go in."""
    return any(future.done() and future.exception() is not None for future in waiting)


def _settle(writer: ThreadPoolExecutor, waiting: deque[Future[None]]) -> None:
    """Let the batch that is being written end, and forget those that were not begun: they are neither confirmed nor lost."""
    for future in waiting:
        future.cancel()
    writer.shutdown(wait=True)


def _refusals(batch: Batch, rejected: Sequence[Rejected]) -> list[Refusal]:
    """One refusal per document of which the store rejected a record."""
    reasons: dict[int, str] = {}
    for item in rejected:
        owner = batch.owners[item.position]
        windows = len(batch.documents[owner].windows)
        reason = item.error.message if windows == 1 else f"window {item.id!r}: {item.error.message}"
        reasons.setdefault(owner, reason)
    return [
        Refusal(batch.documents[owner].position, batch.documents[owner].document.id, reason)
        for owner, reason in reasons.items()
    ]


def _stale_windows(store: Store, batch: Batch, *, told_by: int) -> list[str]:
    """The windows that a longer text of the same document, stored before or earlier in this batch, would leave behind.

    Every window tells how many there are. Number 0 is there for every document; number 1 for those alone that were split, so that where nothing is
    split now, nearly nothing is read.
    """
    counts = {item.document.id: len(item.windows) for item in batch.documents}
    if not counts:
        return []
    asked = {window_id(parent, told_by): parent for parent in counts}
    asked = {name: parent for name, parent in asked.items() if len(name.encode()) <= MAX_ID_BYTES}
    stored = store.get(list(asked), parts=Parts.PAYLOAD)
    longest = {asked[record.id]: window_count(record.payload) for record in stored}
    for item in batch.documents:
        longest[item.document.id] = max(longest.get(item.document.id, 1), len(item.windows))
    stale = [window_id(parent, number) for parent, most in longest.items() for number in range(counts[parent], most)]
    return [name for name in stale if name not in counts]  # who does not split may have ids of this form
