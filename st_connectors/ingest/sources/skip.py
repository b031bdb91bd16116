"""Skip the documents that an earlier ingest has read already, without converting them."""

from __future__ import annotations

__all__ = ["Skip"]


class Skip:
    """The number of documents at the start of the sources that are not converted; for use in one thread.

    Readers subtract what they skip, so that the next source continues with the rest. Refused documents count as
    documents. Whatever remains at the end of the last source is missing from the sources.
    """

    def __init__(self, count: int = 0) -> None:
        """Store the number of documents; raise ValueError if it is negative."""
        if count < 0:
            raise ValueError(f"expected a number of documents to skip of at least 0, got {count}")
        self.remaining = count
        """The number of documents that are still to be skipped."""

    def one(self) -> bool:
        """Return whether the next document is skipped."""
        return self.many(1)

    def many(self, count: int) -> bool:
        """Return whether the next ``count`` documents are skipped, which is either all of them or none."""
        if count > self.remaining:
            return False
        self.remaining -= count
        return True

    def up_to(self, count: int) -> int:
        """Return how many of the next ``count`` documents are skipped."""
        skipped = min(count, self.remaining)
        self.remaining -= skipped
        return skipped
