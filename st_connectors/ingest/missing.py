"""Delete the documents of a collection that a source does not contain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from st_connectors.chunks import parent_of
from st_connectors.ingest.changes import DocumentComparison
from st_connectors.ingest.seen import SeenIds
from st_connectors.store import Parts, Record, Store

__all__ = ["DeleteMissing", "DeletionRefusedError", "Missing", "count_missing", "delete_missing"]

T = TypeVar("T")
PAGE = 1000
"""The number of records that are compared with the ids of the source, or deleted, at a time."""


class DeletionRefusedError(RuntimeError):
    """Documents that are missing in a source are not deleted, because the source may be wrong or incomplete."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The documents of a collection that are missing in a source, and their records.

    ``total`` is the number of records that the collection had before the sync, so that many new documents do not hide
    that most of the former ones would be deleted.
    """

    documents: int
    records: int
    total: int

    @property
    def share(self) -> float:
        """The share of the records of the collection, from 0 to 1."""
        return self.records / max(self.records, self.total, 1)

    def __str__(self) -> str:
        text = f"{self.documents:,} document{'s' * (self.documents != 1)}"
        return text if self.records == self.documents else f"{text} ({self.records:,} records)"


@dataclass(frozen=True, slots=True)
class DeleteMissing:
    """How a sync deletes documents that are missing in its source.

    More than the share ``limit`` of the records of the collection is not deleted. ``confirm`` is called before
    anything is deleted, and nothing is unless it returns True. ``source`` is the name of the source for messages, and
    ``gap`` returns what of the source could not be read, or None.
    """

    limit: float = 0.2
    confirm: Callable[[Missing], bool] | None = None
    source: str = "the source"
    gap: Callable[[], str | None] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= 1:
            raise ValueError(f"the limit of deleted documents is a share from 0 to 1, not {self.limit}")


def delete_missing(store: Store, comparison: DocumentComparison, options: DeleteMissing, read: int, total: int) -> int:
    """Delete the documents that a source does not contain, with all windows, and return their number.

    ``comparison`` has compared the whole source, which has ``read`` documents, with a collection that had ``total``
    records. Only what was counted and confirmed is deleted, and nothing that was stored meanwhile. Raises
    DeletionRefusedError if the source is empty or was not read completely, or if more would be deleted than the limit
    allows.
    """
    _check_source(comparison, options, read)
    counted = SeenIds()
    missing = count_missing(store, comparison.ids, total, counted)
    if missing.share > options.limit:
        raise DeletionRefusedError(
            f"{missing} of the collection, {missing.share:.1%}, would be deleted because {options.source} lacks them, "
            f"and the limit is {options.limit:.0%}: nothing was deleted; raise it with --delete-limit "
            "(DeleteMissing(limit=…))"
        )
    if not missing.records or (options.confirm is not None and not options.confirm(missing)):
        return 0
    for page in _missing_pages(store, comparison.ids):
        ids = [record.id for record in page]
        if known := [each for each, is_counted in zip(ids, counted.contains(ids), strict=True) if is_counted]:
            store.delete(known)
    store.refresh()
    return missing.documents


def count_missing(store: Store, ids: SeenIds, total: int, counted: SeenIds | None = None) -> Missing:
    """Count the documents of a collection whose ids are not among those of a source, and their records.

    The ids of the records are added to ``counted``.
    """
    documents = records = 0
    for page in _missing_pages(store, ids):
        records += len(page)
        documents += sum(record.id == parent_of(record.id, record.payload) for record in page)
        if counted is not None:
            counted.add([record.id for record in page])
    return Missing(documents, records, total)


def _check_source(comparison: DocumentComparison, options: DeleteMissing, read: int) -> None:
    refusal, gap = comparison.unidentified, None if options.gap is None else options.gap()
    reason = None
    if not read:
        reason = f"{options.source} has no documents"
    elif refusal is not None:
        reason = f"{options.source} has documents that cannot be read, whose ids are not known ({refusal})"
    elif gap is not None:
        reason = f"{options.source} was not read completely ({gap})"
    if reason is not None:
        raise DeletionRefusedError(
            f"{reason}: nothing was deleted; repair the source, or leave out --delete-missing (delete_missing)"
        )


def _missing_pages(store: Store, ids: SeenIds) -> Iterator[list[Record]]:
    for page in _pages(store.scan(parts=Parts.PAYLOAD, batch=PAGE)):
        are_in_source = ids.contains([parent_of(record.id, record.payload) for record in page])
        yield [record for record, is_in_source in zip(page, are_in_source, strict=True) if not is_in_source]


def _pages(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while page := list(islice(iterator, PAGE)):
        yield page
