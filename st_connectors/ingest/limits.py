"""Stop an ingest in which too many documents are refused."""

from __future__ import annotations

from dataclasses import dataclass

from st_connectors.ingest.report import IngestReport, Refusal

__all__ = ["MaxRefused", "TooManyRefusedError", "check_refused", "check_resumed", "parse_max_refused"]

SAMPLE = 100
"""The number of documents from which on a share is compared. If so many are refused and none is confirmed, the ingest
stops even without a limit, because the reason does not concern single documents."""


class TooManyRefusedError(RuntimeError):
    """More documents were refused than the limit allows, or all."""


@dataclass(frozen=True, slots=True)
class MaxRefused:
    """How many documents may be refused: a count, or a share of those read, which applies from the 100th on.

    Without either there is no limit.
    """

    count: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.share is not None:
            raise ValueError("a limit of refused documents is either a count or a share, not both")
        if (self.count is not None and self.count < 0) or (self.share is not None and not 0 <= self.share <= 1):
            raise ValueError("a limit of refused documents is a count of at least 0, or a share between 0 and 1")

    def is_exceeded(self, report: IngestReport) -> bool:
        """Return whether a report has more refused documents than the limit."""
        if self.count is not None:
            return report.refused_total > self.count
        if self.share is None:
            return False
        return report.read >= SAMPLE and report.refused_total > self.share * report.read

    def __str__(self) -> str:
        if self.share is not None:
            return f"{100 * self.share:g}%"
        return "none" if self.count is None else f"{self.count:,}"


def parse_max_refused(value: MaxRefused | int | str) -> MaxRefused:
    """Return the limit for a count such as 100 or "100", or a share such as "1%"; raise ValueError for others."""
    if isinstance(value, MaxRefused):
        return value
    text = str(value).strip()
    try:
        return MaxRefused(share=float(text[:-1]) / 100) if text.endswith("%") else MaxRefused(count=int(text))
    except ValueError as error:
        raise ValueError(
            f"expected a number of refused documents or a share, such as 100 or 1%, not {text!r}"
        ) from error


def check_refused(total: IngestReport, last: Refusal, limit: MaxRefused | None) -> None:
    """Raise TooManyRefusedError if more documents are refused than the limit, or if all are.

    ``last`` is a refused document, whose reason becomes part of the message.
    """
    if limit is not None:
        if limit.is_exceeded(total):
            raise TooManyRefusedError(f"{_comparison(total, limit)}; the last reason: {last.reason}")
    elif not total.confirmed and not total.unchanged and total.refused_total >= SAMPLE:
        message = f"all of the first {total.refused_total:,} documents were refused"
        raise TooManyRefusedError(f"{message}; the last reason: {last.reason}")


def check_resumed(total: IngestReport, limit: MaxRefused | None) -> None:
    """Raise TooManyRefusedError if the earlier runs of an ingest have refused more documents than the limit."""
    if limit is not None and limit.is_exceeded(total):
        raise TooManyRefusedError(
            f"{_comparison(total, limit)}: raise it (--max-refused, max_refused=) to continue this ingest"
        )


def _comparison(total: IngestReport, limit: MaxRefused) -> str:
    return f"{total.refused_total:,} of {total.read:,} documents were refused, and the limit is {limit}"
