"""Reports on the documents that an ingest stored and refused, and the errors that contain a report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from st_connectors.errors import rebuild
from st_connectors.ingest.documents import Place, size_of

__all__ = ["IngestFailed", "IngestInterrupted", "IngestReport", "Refusal", "Tally", "size_of_refused"]

MAX_REFUSED_BYTES = 64 * 1024 * 1024
"""The estimated size of the refused documents that a report contains."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document that was not stored: its position in the ingest, counted from 0, its id or "", and the reason.

    ``error`` is the class of the error, which states whether a retry can help. ``place`` is the position in the source,
    if known. ``document`` is the document as far as it was read: a Document, a mapping, a Record of a copy, the bytes
    of a line, or None if nothing was read; it is ignored in comparisons.
    """

    position: int
    id: str
    reason: str
    error: type[Exception] | None = None
    place: Place | None = None
    document: object = field(default=None, compare=False, repr=False)
    stage: str = field(default="read", compare=False)
    attempts: int = field(default=0, compare=False)
    status: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        name = f" {self.id!r}" if self.id else ""
        place = "" if self.place is None else f"{self.place}: "
        return f"record {self.position + 1}{name}: {place}{self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON, without the document."""
        return {
            "position": self.position,
            "id": self.id,
            "reason": self.reason,
            "error": None if self.error is None else self.error.__name__,
            "place": None if self.place is None else self.place.to_json(),
            "stage": self.stage,
            "attempts": self.attempts,
            "status": self.status,
        }


def size_of_refused(document: object) -> int:
    """Estimate the size of a refused document in bytes; 0 for one that is nested too deeply."""
    try:
        return len(document) if isinstance(document, bytes) else size_of(getattr(document, "payload", document))
    except RecursionError:
        return 0


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result of an ingest; reports can be added.

    ``read`` counts all documents, ``confirmed`` those that were stored completely, and ``refused_total`` those that
    were refused; ``refused`` contains the first refusals, and their documents up to about 64 MiB in all. ``records``
    counts stored records, several for each document that was ``split``. ``cut`` counts documents that exceed the
    maximum length of a model, so that their end was not encoded. ``skipped`` counts documents of a copy that the target
    already contained; they are included in ``read``.

    ``replaced`` counts confirmed documents that a later one with the same id replaced in the same ingest, so that
    ``confirmed - replaced`` documents are stored; it is counted by 64-bit hashes of the ids, for each run of a resumed
    ingest by itself. ``filled`` contains, for each filterable field of the collection, the number of confirmed
    documents with a value in it.

    ``resumed`` counts the documents of ``read`` that an earlier run of the same ingest had confirmed or refused.
    ``tokens`` counts those of encoded texts, as far as the models tell. ``retries`` counts repeated requests.
    ``encode_seconds`` and ``write_seconds`` are the times in the encoder and in requests to the store, of all writers
    together; the two overlap.

    Of a sync, ``unchanged`` counts documents that the collection contains as they are in the source, ``payload_only``
    the confirmed documents that were written with their stored vectors, and ``deleted`` documents of the collection
    that are not in the source. ``read`` is the sum of ``confirmed``, ``unchanged`` and ``refused_total``.
    """

    read: int = 0
    confirmed: int = 0
    records: int = 0
    refused: tuple[Refusal, ...] = ()
    refused_total: int = 0
    cut: int = 0
    split: int = 0
    skipped: int = 0
    seconds: float = 0.0
    replaced: int = 0
    filled: Mapping[str, int] = field(default_factory=dict, hash=False)
    resumed: int = 0
    tokens: int = 0
    retries: int = 0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    unchanged: int = 0
    payload_only: int = 0
    deleted: int = 0

    def __add__(self, other: IngestReport) -> IngestReport:
        """Add all counts and seconds and append the refusals, whose positions stay those of their own ingest."""
        if not isinstance(other, IngestReport):
            return NotImplemented
        counts = [each.name for each in fields(self) if each.name != "filled"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in counts}
        names = {**self.filled, **other.filled}
        return IngestReport(
            **sums, filled={name: self.filled.get(name, 0) + other.filled.get(name, 0) for name in names}
        )

    @property
    def unfilled(self) -> tuple[str, ...]:
        """The filterable fields in which no confirmed document has a value; empty if no document was confirmed."""
        return tuple(name for name, count in self.filled.items() if not count) if self.confirmed else ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON, without the refused documents."""
        counts = asdict(replace(self, refused=()))
        refused = [refusal.to_json() for refusal in self.refused]
        return counts | {"refused": refused, "unfilled": list(self.unfilled)}

    def __str__(self) -> str:
        parts = [f"{self.confirmed:,} of {self.read:,} documents confirmed in {self.seconds:.1f} s"]
        counts = {
            "replaced by a later one with the same id": self.replaced,
            "refused": self.refused_total,
            "split": self.split,
            "cut": self.cut,
            "already there": self.skipped,
            "confirmed by an earlier run": self.resumed,
            "unchanged": self.unchanged,
            "with a new payload only": self.payload_only,
            "deleted": self.deleted,
        }
        for what, count in counts.items():
            if count:
                parts.append(f"{count:,} {what}")
        return ", ".join(parts)


class IngestFailed(Exception):
    """An ingest failed; ``report`` is the report up to that point, and ``__cause__`` is the error."""

    def __init__(self, report: IngestReport, cause: BaseException) -> None:
        """Store the report."""
        super().__init__(f"{cause} (until then {report})" if report.read else str(cause))
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args, self.__dict__.copy())


class IngestInterrupted(KeyboardInterrupt):
    """Ctrl-C interrupted an ingest; ``report`` is the report up to that point."""

    def __init__(self, report: IngestReport) -> None:
        """Store the report."""
        super().__init__(f"interrupted: {report}")
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args, self.__dict__.copy())


class Tally:
    """The running report; only the writing threads change it, so that an interrupt cannot fall between two counts.

    For use in one thread at a time.
    """

    def __init__(self, max_refused: int, initial: IngestReport | None = None) -> None:
        """Start the clock; at most ``max_refused`` refusals are stored. ``initial`` is the report of earlier runs."""
        self._room = MAX_REFUSED_BYTES
        self._began = time.perf_counter()
        self._max_refused = max_refused
        self._initial = IngestReport() if initial is None else replace(initial, resumed=initial.read)
        self._total = IngestReport()

    def add(self, batch: IngestReport) -> None:
        """Add the report of one batch."""
        first = batch.refused[: self._max_refused - len(self._total.refused)]
        self._total += replace(batch, refused=tuple(map(self._bounded, first)))

    def _bounded(self, refusal: Refusal) -> Refusal:
        """Return a refusal, without its document if that exceeds the size of all refused documents in the report."""
        size = size_of_refused(refusal.document)
        if size > self._room:
            return replace(refusal, document=None)
        self._room -= size
        return refusal

    @property
    def of_this_run(self) -> IngestReport:
        """The sum of the batches of this run."""
        return self._total

    def report(self) -> IngestReport:
        """Return the report so far of all runs, refusals of this run in the order of the source."""
        total = self._initial + self._total
        refused = tuple(sorted(total.refused, key=lambda refusal: refusal.position))
        return replace(total, refused=refused, seconds=time.perf_counter() - self._began)
