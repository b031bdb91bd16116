"""Read, encode and write documents in stages that overlap, connected by bounded queues.

    caller's thread         preparing thread         encoding thread       writing threads
    read → split → batch ──► compare → tokenize ────► encode ──► order ───► write → confirm

Only a sync compares its batches with the store.

Memory is bounded by the queues. Batches are confirmed in any order; documents with equal ids keep theirs.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from st_connectors._matching import values_at
from st_connectors.arguments import set_ints
from st_connectors.chunks import document_id_of
from st_connectors.errors import Refused, Temporary, Unsupported
from st_connectors.ingest.channel import Channel
from st_connectors.ingest.documents import Document
from st_connectors.ingest.encode import Batch, encode_batch, gather_batches
from st_connectors.ingest.ledger import Ledger
from st_connectors.ingest.limits import MaxRefused, check_refused, check_resumed
from st_connectors.ingest.order import Order, Turn
from st_connectors.ingest.pace import Pace, Patience, Sending, Waiting
from st_connectors.ingest.report import IngestFailed, IngestInterrupted, IngestReport, Refusal
from st_connectors.ingest.resuming import Reading, start_reading
from st_connectors.ingest.seen import SeenIds
from st_connectors.ingest.state import StateError
from st_connectors.ingest.tokens import tokenize_batch
from st_connectors.ingest.windows import Prepared, Spans, StaleWindows
from st_connectors.layers.retry import watching_retries
from st_connectors.store import Record, Rejected, Store
from st_connectors.vectorise import FieldEncoder

__all__ = ["IngestOptions", "Progress", "check_documents", "ingest"]

T = TypeVar("T")

Progress = Callable[[IngestReport], None]
"""A callback that receives the report so far after every batch, in a writing thread, one call at a time."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How documents are batched and written.

    A batch ends at ``batch`` documents, about ``batch_bytes`` of text and payload, or ``batch_tokens`` tokens, those of
    all models together. One batch waits to be tokenized, one for the encoder, and at most ``ahead`` encoded ones for
    the store. Up to ``writers`` requests are sent at the same time. ``spans``
    splits long texts into windows; if it is None, models truncate them, and the report counts the truncated documents.

    The report contains at most ``max_refused`` refusals and counts the rest; ``on_refused`` receives every refusal as
    soon as its batch is written, in a writing thread, one call at a time. ``stop_after`` limits the number of refused
    documents. ``patience`` states how long to wait for a store that is down, and ``on_wait`` is called before each such
    wait. ``on_interrupt`` is called when Ctrl-C was pressed and batches are still being written. ``should_stop`` is
    called before each document; the ingest ends, as if the source ended, once it returns True.

    ``compare`` is called for each batch, in order and in the preparing thread, and returns the batch without the
    documents that need not be written; after a temporary error it is called again.
    """

    batch: int = 512
    batch_bytes: int = 4 * 1024 * 1024
    batch_tokens: int = 64 * 1024
    ahead: int = 2
    spans: Spans | None = None
    text_key: str = "text"
    max_refused: int = 1000
    on_refused: Callable[[Refusal], None] | None = None
    writers: int = 1
    patience: Patience = field(default_factory=Patience)
    stop_after: MaxRefused | None = None
    on_wait: Callable[[Waiting], None] | None = None
    on_interrupt: Callable[[], None] | None = None
    should_stop: Callable[[], bool] | None = None
    compare: Callable[[Batch], Batch] | None = None

    def __post_init__(self) -> None:
        set_ints(self, {"batch": 1, "batch_bytes": 1, "batch_tokens": 1, "ahead": 1, "writers": 1})


def ingest(
    store: Store,
    documents: Iterable[object],
    encoders: Sequence[FieldEncoder],
    *,
    options: IngestOptions | None = None,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
) -> IngestReport:
    """Encode documents and store them; of several documents with the same id, the last one is stored.

    ``documents`` is read once, in the thread of the caller, batch by batch. Values that are not documents, and
    documents that the store or an encoder refuses, are reported; all other documents are stored. The report counts
    documents that were replaced by a later one, which takes 8 bytes of memory per id. ``ledger`` has the state from
    which an interrupted ingest continues, and receives what is confirmed.

    Raises :class:`IngestFailed` if the source, an encoder or the store fails, and :class:`IngestInterrupted` on Ctrl-C,
    after the batches that are encoded are written; on a second Ctrl-C it does not wait for them. Both contain the
    report up to that point.
    """
    check_documents(documents)
    chosen = options or IngestOptions()
    opened = Ledger(chosen.max_refused) if ledger is None else ledger
    run = _Run(store, encoders, chosen, progress, opened)
    try:
        check_resumed(opened.report(), chosen.stop_after)
        run.start()
        try:
            reading = start_reading(documents, opened.initial, opened.confirmed)
            for batch in _batches(reading, chosen):
                if not run.put(batch):
                    break
            run.finish()
        except Exception:
            run.finish()
            raise
        run.raise_failure()
        run.patiently(store.refresh)
        if chosen.should_stop is not None and chosen.should_stop():
            opened.save()
        else:
            opened.complete()
    except KeyboardInterrupt as error:
        run.interrupt()
        raise IngestInterrupted(opened.report()) from error
    except Exception as error:  # noqa: BLE001  # whatever the source raises
        run.save()
        failure = run.failure or error
        raise IngestFailed(opened.report(), failure) from failure
    except BaseException:
        run.stop()
        raise
    return opened.report()


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


def _batches(reading: Reading, options: IngestOptions) -> Iterator[Batch]:
    return gather_batches(
        reading if options.should_stop is None else _until_stopped(reading, options.should_stop),
        options.text_key,
        options.spans,
        count=options.batch,
        size=options.batch_bytes,
        cursor=reading.cursor,
    )


def _until_stopped(
    items: Iterable[tuple[int, object]], should_stop: Callable[[], bool]
) -> Iterator[tuple[int, object]]:
    iterator = iter(items)
    while not should_stop():
        try:
            yield next(iterator)
        except StopIteration:
            return


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """An encoded batch and its turn among the batches."""

    batch: Batch
    turn: Turn


@dataclass(frozen=True, slots=True)
class _Sent:
    """The records of a batch that the store refused, and how often each was sent."""

    rejected: Sequence[Rejected]
    attempts: Mapping[int, int]
    retries: int


class _Run:
    """The threads of one ingest and what they share."""

    def __init__(
        self,
        store: Store,
        encoders: Sequence[FieldEncoder],
        options: IngestOptions,
        progress: Progress | None,
        ledger: Ledger,
    ) -> None:
        self.failure: BaseException | None = None
        self._store = store
        self._encoders = encoders
        self._options = options
        self._progress = progress
        self._ledger = ledger
        self._read: Channel[Batch] = Channel(1)
        self._prepared: Channel[Batch] = Channel(1)
        self._encoded: Channel[_Encoded] = Channel(options.ahead)
        self._order = Order()
        self._pace = Pace(options.writers, options.patience, options.on_wait)
        self._stale = StaleWindows(store, are_splitting=options.spans is not None)
        self._seen = SeenIds()
        self._counting = threading.Lock()
        self._is_abandoned = False
        # Daemons, so that a second Ctrl-C ends the process although one of them is in a long call.
        self._threads = [
            threading.Thread(target=self._prepare, name="ingest-preparer", daemon=True),
            threading.Thread(target=self._encode, name="ingest-encoder", daemon=True),
            *(
                threading.Thread(target=self._write, name=f"ingest-writer-{number}", daemon=True)
                for number in range(options.writers)
            ),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def put(self, batch: Batch) -> bool:
        """Pass a batch on; return False if the run has failed."""
        return self._read.put(batch)

    def finish(self) -> None:
        """Wait until everything that was read is written, or the run has failed."""
        self._read.close()
        self._join()

    def interrupt(self) -> None:
        """Read and encode nothing further, and wait for what is encoded; a second Ctrl-C ends the wait."""
        try:
            self._stop_encoding()
            if self._options.on_interrupt is not None:
                self._options.on_interrupt()
            self._join()
        except KeyboardInterrupt:
            with self._counting:
                self._is_abandoned = True
            self.stop()
        finally:
            self.save()

    def save(self) -> None:
        """Write the state, unless the failure of the run is that it cannot be written."""
        with self._counting:
            try:
                self._ledger.save()
            except StateError as error:
                self.failure = self.failure or error

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """End all threads as soon as their present call returns."""
        self._stop_encoding()
        self._encoded.stop()
        self._order.stop()
        self._pace.stop()

    def _stop_encoding(self) -> None:
        self._read.stop()
        self._prepared.stop()

    def _fail(self, error: BaseException) -> None:
        """Record the first error as the failure of the run."""
        with self._counting:
            if not isinstance(error, _StoppedError):
                self.failure = self.failure or error

    def _prepare(self) -> None:
        """Compare and tokenize batches; after an error, what is prepared is still encoded and written."""
        try:
            while (batch := self._read.get()) is not None:
                for part in tokenize_batch(self._compared(batch), self._encoders, self._options.batch_tokens):
                    self._prepared.put(part)
        except BaseException as error:  # noqa: BLE001  # raised in the thread of the caller
            self._fail(error)
            self._read.stop()
        finally:
            self._prepared.close()

    def _compared(self, batch: Batch) -> Batch:
        compare = self._options.compare
        return batch if compare is None else self.patiently(lambda: compare(batch))

    def _encode(self) -> None:
        """Encode batches; after an error, what is encoded is still written."""
        try:
            while (batch := self._prepared.get()) is not None:
                ready = encode_batch(batch, self._encoders)
                turn = self._order.add(document_id_of(item.document.id) for item in ready.documents)
                self._encoded.put(_Encoded(ready, turn))
        except BaseException as error:  # noqa: BLE001  # raised in the thread of the caller
            self._fail(error)
            self._stop_encoding()
        finally:
            self._encoded.close()

    def _write(self) -> None:
        """Write batches; after an error, only the requests that are under way are finished."""
        try:
            while (item := self._encoded.get()) is not None:
                if not self._order.wait(item.turn):
                    return
                self._write_batch(item.batch)
                self._order.finish(item.turn)
        except BaseException as error:  # noqa: BLE001  # raised in the thread of the caller
            self._fail(error)
            self.stop()

    def _write_batch(self, batch: Batch) -> None:
        """Write one batch, and count it when the store has acknowledged all of it."""
        began = time.perf_counter()
        stale = self.patiently(lambda: self._stale.find(batch.documents))
        # Stale windows are deleted first: once the first window is replaced, nothing tells that they exist.
        if stale:
            self.patiently(lambda: self._store.delete(stale))
        sent = self._send(batch.records)
        seconds = time.perf_counter() - began
        with self._counting:
            if self._is_abandoned:  # the caller has the report already, and the files may be closed
                raise _StoppedError
            report = self._report(batch, sent, seconds)
            total = self._ledger.add(batch, report)
            if self._options.on_refused is not None:
                for refusal in report.refused:
                    self._options.on_refused(refusal)
            if self._progress is not None:
                self._progress(total)
        if report.refused:
            check_refused(total, report.refused[-1], self._options.stop_after)

    def patiently(self, call: Callable[[], T]) -> T:
        """Return the result of a call, which is repeated after temporary errors until the patience is over."""
        while True:
            sending = self._pace.begin()
            if sending is None:
                raise _StoppedError
            try:
                result = call()
            except Temporary as error:
                self._pace.fail(sending, error)
                continue
            except BaseException:
                self._pace.abandon(sending)
                raise
            self._pace.succeed(sending, is_smooth=True)
            return result

    def _send(self, records: Sequence[Record]) -> _Sent:
        """Write the records of a batch, and return those that the store refuses for good.

        A record that fails temporarily is sent again until the patience is over, and never counts as refused. Any error
        that does not concern a single record, such as a missing permission, is raised.
        """
        pending = list(range(len(records)))
        attempts = dict.fromkeys(pending, 0)
        refused: list[Rejected] = []
        retries = 0

        def count_retry(_error: Temporary, _wait: float) -> None:
            nonlocal retries
            retries += 1

        while pending:
            sending = self._pace.begin()
            if sending is None:
                raise _StoppedError
            part = pending[: max(1, math.ceil(len(records) * sending.share))]
            before = retries
            with watching_retries(count_retry):
                rejected = self._request(records, part, sending)
            for at in part:
                attempts[at] += 1 + retries - before
            if rejected is None:
                retries += 1
                continue
            again = {item.position: item.error for item in rejected if isinstance(item.error, Temporary)}
            refused += [item for item in rejected if item.position not in again]
            pending = sorted(again) + pending[len(part) :]
            if again:
                retries += 1
                self._pace.fail(sending, _longest_wait(again.values()), has_progressed=len(again) < len(part))
            else:
                self._pace.succeed(sending, is_smooth=retries == before)
        return _Sent(refused, attempts, retries)

    def _request(self, records: Sequence[Record], part: Sequence[int], sending: Sending) -> list[Rejected] | None:
        """Send some records; return the rejected ones at their positions in the batch, None if all failed for now."""
        try:
            answer = self._store.upsert([records[at] for at in part])
        except Temporary as error:
            self._pace.fail(sending, error)
            return None
        except BaseException:
            self._pace.abandon(sending)
            raise
        rejected = [Rejected(part[item.position], item.id, item.error) for item in answer]
        for item in rejected:
            if not isinstance(item.error, Temporary | Refused | Unsupported):
                self._pace.abandon(sending)
                raise item.error
        return rejected

    def _report(self, batch: Batch, sent: _Sent, seconds: float) -> IngestReport:
        """Return the report of a batch that was written."""
        refused = tuple(sorted((*batch.refused, *_refusals(batch, sent)), key=lambda refusal: refusal.position))
        confirmed = _confirmed(batch, refused)
        documents = [item.document for item in confirmed]
        return IngestReport(
            read=batch.read,
            confirmed=len(confirmed),
            unchanged=batch.unchanged,
            payload_only=sum(item.position in batch.renewed for item in confirmed),
            records=len(batch.records) - len(sent.rejected),
            refused=refused,
            refused_total=len(refused),
            cut=sum(item.position in batch.truncated for item in batch.documents),
            split=sum(len(item.windows) > 1 for item in batch.documents),
            replaced=self._seen.add([document.id for document in documents]),
            filled={name: _count_filled(documents, name) for name in self._store.schema.filterable},
            tokens=batch.token_count,
            retries=sent.retries,
            encode_seconds=batch.encode_seconds,
            write_seconds=seconds,
        )


class _StoppedError(Exception):
    """The run was stopped before a batch was written completely."""


def _longest_wait(errors: Iterable[Temporary]) -> Temporary:
    return max(errors, key=lambda error: error.retry_after or 0.0)


def _refusals(batch: Batch, sent: _Sent) -> list[Refusal]:
    """Return one refusal for each document with a rejected record."""
    first: dict[int, Rejected] = {}
    for item in sent.rejected:
        first.setdefault(batch.owners[item.position], item)
    refusals = []
    for owner, item in first.items():
        prepared = batch.documents[owner]
        reason = item.error.message if len(prepared.windows) == 1 else f"window {item.id!r}: {item.error.message}"
        refusals.append(
            Refusal(
                prepared.position,
                prepared.document.id,
                reason,
                type(item.error),
                prepared.document.place,
                prepared.document,
                "write",
                sent.attempts[item.position],
                item.error.status,
            )
        )
    return refusals


def _confirmed(batch: Batch, refused: Sequence[Refusal]) -> list[Prepared]:
    """Return the documents of a batch that were stored completely."""
    positions = {refusal.position for refusal in refused}
    return [item for item in batch.documents if item.position not in positions]


def _count_filled(documents: Sequence[Document], name: str) -> int:
    """Return the number of documents with a value in a filterable field; null and an empty list are no values."""
    return sum(any(value is not None for value in values_at(document.payload, name)) for document in documents)
