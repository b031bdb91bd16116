"""What the set-up of every store can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from st_connectors.setup.comparing import Finding
from st_connectors.setup.filled import Filled
from st_connectors.setup.requests import Request

__all__ = ["Done", "Report", "SetUp"]


@dataclass(frozen=True, slots=True)
class Done:
    """What happened to one object: "created", "unchanged", "replaced", "removed" and so on."""

    what: str
    name: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.outcome}: {self.what} {self.name}"

    def to_json(self) -> dict[str, str]:
        """Return the result as values that can be written as JSON."""
        return {"what": self.what, "name": self.name, "outcome": self.outcome}


Report: TypeAlias = Callable[[Done], None]
"""A function that is called after each object."""


class SetUp(Protocol):
    """The set-up of one collection in one store.

    All methods raise store errors, and ValueError or Unsupported for what the store does not have.
    """

    def requests(self) -> Sequence[Request]:
        """Return the requests that ``apply`` sends to a store that has nothing yet; sends only requests that read."""
        ...

    def notes(self) -> Sequence[str]:
        """Return what the user must know or do besides; empty if there is nothing."""
        ...

    def apply(self, report: Report) -> None:
        """Create what is missing."""
        ...

    def count(self) -> int | None:
        """Return the number of documents in the collection that ``remove`` deletes; None if there is none."""
        ...

    def remove(self, report: Report, *, keeps_collection: bool) -> None:
        """Delete what ``apply`` created, all but the collection with ``keeps_collection``."""
        ...

    def check(self) -> Iterator[Finding]:
        """Yield how the vectors of the store differ from those of the library."""
        ...

    def fill(self, source: str, *, by_scan: bool) -> Filled:
        """Copy the documents of another collection of the same store into this one."""
        ...

    def example(self) -> Sequence[Request]:
        """Return requests that store a document and search."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
