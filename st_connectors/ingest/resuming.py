"""Read a source from the position at which an interrupted ingest stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from st_connectors.ingest.positions import Positions
from st_connectors.ingest.sources.stateful import StatefulItems, items_of
from st_connectors.ingest.state import RESTART, State, StateError
from st_connectors.store import JsonValue

__all__ = ["Reading", "Seekable", "start_reading"]


@runtime_checkable
class Seekable(Protocol):
    """A source that can begin at any position without yielding what comes before."""

    def starting_at(self, position: int) -> Iterable[object]:
        """Return the documents from a position on, counted from 0; raise StateError if the source is shorter."""
        ...


class Reading:
    """The values of a source that are still to be ingested, with their positions; iterated once."""

    def __init__(
        self,
        values: Iterable[object],
        start: int,
        confirmed: Positions,
        cursor: Callable[[], JsonValue] = lambda: None,
    ) -> None:
        """Read ``values``, of which the first has the position ``start``, except those that are confirmed."""
        self._values = values
        self._start = start
        self._confirmed = Positions(confirmed.intervals)
        self.cursor = cursor

    def __iter__(self) -> Iterator[tuple[int, object]]:
        numbered = enumerate(self._values, self._start)
        if self._start >= self._confirmed.end:
            return numbered
        return ((position, value) for position, value in numbered if position not in self._confirmed)


def start_reading(documents: Iterable[object], state: State, confirmed: Positions) -> Reading:
    """Return the reading of a source from the first position that is not confirmed.

    A Seekable source begins there, a stateful one at the cursor of the state; of any other iterable, the first values
    are read and dropped. Raises StateError if the source has fewer values than were confirmed.
    """
    prefix = confirmed.prefix
    if isinstance(documents, Seekable):
        return Reading(documents.starting_at(prefix) if prefix else documents, prefix, confirmed)
    items = items_of(documents)
    if not isinstance(items, StatefulItems):
        return Reading(_dropped(iter(items), prefix), prefix, confirmed)
    cursor: Any = state.cursor
    start = 0
    if cursor is not None:
        items.load_state_dict(cursor["state"])
        start = int(cursor["position"])
    values = _dropped(iter(items), prefix - start)
    return Reading(values, prefix, confirmed, items.state_dict)


def _dropped(values: Iterator[object], count: int) -> Iterator[object]:
    """Yield values after the first ``count``; raise StateError if there are fewer."""
    dropped = sum(1 for _ in islice(values, count))
    if dropped < count:
        raise StateError(
            f"the source ended after {dropped:,} documents, and {count:,} were confirmed: it is another source, or it "
            f"was shortened; {RESTART}"
        )
    yield from values
