"""What an ingest says when it is over, or stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["IngestFailed", "IngestInterrupted", "IngestReport", "Refusal", "Tally"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document that did not go in: its position in the source, counted from 0, its id where it has one, and why."""

    position: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the documents of an ingest.

    ``confirmed`` counts the documents that the store acknowledged in whole, ``refused_total`` those that did not go in; together they are ``read``.
    ``refused`` holds the first of the refusals. ``records`` counts acknowledged records, which are more than documents where texts were
    ``split``. ``cut`` counts documents whose text is longer than a model takes, so that its end was not encoded. ``skipped`` counts those of a copy
    that were there already as they are; they too are part of ``read``.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"refused": [asdict(refusal) for refusal in self.refused]}

    def __str__(self) -> str:
        parts = [f"{self.confirmed:,} of {self.read:,} documents confirmed in {self.seconds:.1f} s"]
        counts = {"refused": self.refused_total, "split": self.split, "cut": self.cut, "already there": self.skipped}
        for what, count in counts.items():
            if count:
                parts.append(f"{count:,} {what}")
        return ", ".join(parts)


class IngestFailed(Exception):
    """An ingest ended early; ``report`` says what was confirmed until then, ``__cause__`` why it ended."""

    def __init__(self, report: IngestReport, cause: BaseException) -> None:
        """Keep the report."""
        super().__init__(f"{cause} (until then {report})" if report.read else str(cause))
        self.report = report


class IngestInterrupted(KeyboardInterrupt):
    """Ctrl-C during an ingest; ``report`` says what was confirmed until then."""

    def __init__(self, report: IngestReport) -> None:
        """Keep the report."""
        super().__init__(f"interrupted: {report}")
        self.report = report


class Tally:
    """The running count; only the writing thread changes it, so that an interrupt cannot fall between two of its numbers."""

    def __init__(self, max_refused: int) -> None:
        """Keep at most ``max_refused`` refusals in full."""
        self._began = time.perf_counter()
        self._max_refused = max_refused
        self._refused: list[Refusal] = []
        self._totals = IngestReport()

    def add(self, done: IngestReport, refused: Sequence[Refusal]) -> None:
        """Add what became of one batch."""
        total = self._totals
        self._refused.extend(refused[: self._max_refused - len(self._refused)])
        self._totals = IngestReport(
            read=total.read + done.read,
            confirmed=total.confirmed + done.confirmed,
            records=total.records + done.records,
            refused_total=total.refused_total + len(refused),
            cut=total.cut + done.cut,
            split=total.split + done.split,
            skipped=total.skipped + done.skipped,
        )

    def report(self) -> IngestReport:
        """The count as it stands."""
        return replace(
            self._totals,
            refused=tuple(sorted(self._refused, key=lambda refusal: refusal.position)),
            seconds=time.perf_counter() - self._began,
        )
