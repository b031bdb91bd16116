"""Select the records of documents to delete, by id or by filter; a split document is selected with all its windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from st_connectors.chunks import parent_of, window_count, window_id
from st_connectors.store import Parts, Record, Store

if TYPE_CHECKING:
    from st_connectors.filters import Filter

__all__ = ["Selection", "delete_selection", "select_by_filter", "select_by_ids"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Documents to delete.

    ``documents`` are the ids of the documents that exist, in order, and ``records`` the ids of all their records.
    ``missing`` are the requested ids that do not exist.
    """

    documents: tuple[str, ...]
    records: tuple[str, ...]
    missing: tuple[str, ...] = ()


def select_by_ids(store: Store, ids: Sequence[str]) -> Selection:
    """Select documents by their ids; an id that is listed several times counts once."""
    wanted = list(dict.fromkeys(ids))
    selected = _select(store.get(wanted, parts=Parts.PAYLOAD))
    existing = set(selected.documents)
    return Selection(selected.documents, selected.records, tuple(each for each in wanted if each not in existing))


def select_by_filter(store: Store, where: Filter) -> Selection:
    """Select the documents of which a record passes a filter."""
    return _select(store.scan(where=where, parts=Parts.PAYLOAD), by_parent=True)


def delete_selection(store: Store, selection: Selection) -> None:
    """Delete the records of a selection, and the missing ids, in case they were stored since."""
    store.delete([*selection.records, *selection.missing])
    store.refresh()


def _select(records: Iterable[Record], *, by_parent: bool = False) -> Selection:
    counts: dict[str, int] = {}
    for record in records:
        document = parent_of(record.id, record.payload) if by_parent else record.id
        counts[document] = max(counts.get(document, 0), window_count(record.payload))
    windows = tuple(window_id(document, number) for document, count in counts.items() for number in range(count))
    return Selection(tuple(counts), windows)
