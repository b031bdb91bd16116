"""Iterables that can go on where they stopped, such as streams of Hugging Face's datasets, with their states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeGuard

from st_connectors.ingest.documents import DocumentError
from st_connectors.ingest.sources.plain_values import Unreadable, read_value

__all__ = ["PlainItems", "Stateful", "StatefulItems", "is_stateful", "items_of", "plain_item"]


class Stateful(Protocol):
    """An iterable whose state says which items were read, as of ``datasets`` and ``torchdata``."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the items, from the loaded state if there is one."""
        ...

    def state_dict(self) -> Any:
        """Return the state after the item that was returned last."""
        ...

    def load_state_dict(self, state: Any, /) -> object:
        """Let the next iteration begin after the items of a state."""
        ...


def is_stateful(value: object) -> TypeGuard[Stateful]:
    """Return whether an iterable can go on from a state without losing items.

    A stream of ``datasets`` with a shuffle buffer cannot: its state does not contain the items in the buffer.
    """
    names = ("__iter__", "state_dict", "load_state_dict")
    return all(callable(getattr(value, name, None)) for name in names) and not _has_shuffle_buffer(value)


_PARTS = ("dataset", "_ex_iterable", "ex_iterable", "ex_iterables")
"""Where ``datasets`` 2 to 5, and loaders around it, have the iterables that a stream is composed of."""


def _has_shuffle_buffer(value: object) -> bool:
    left, seen = [value], set[int]()
    while left:
        part = left.pop()
        if type(part).__name__ == "BufferShuffledExamplesIterable":
            return True
        if id(part) not in seen:
            seen.add(id(part))
            left += part if isinstance(part, list) else _parts(part)
    return False


def _parts(value: object) -> list[object]:
    return [part for name in _PARTS if (part := getattr(value, "__dict__", {}).get(name)) is not None]


def items_of(documents: Iterable[object]) -> Iterable[object]:
    """Return an iterable with JSON values if it is stateful or of ``datasets``; others unchanged."""
    if is_stateful(documents):
        return StatefulItems(documents)
    return PlainItems(documents) if _is_of_datasets(documents) else documents


def _is_of_datasets(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "datasets"


class PlainItems:
    """The items of an iterable, with JSON values."""

    def __init__(self, source: Iterable[object]) -> None:
        """Store the iterable."""
        self._source = source

    def __iter__(self) -> Iterator[object]:
        return map(plain_item, self._source)


class StatefulItems(PlainItems):
    """The items of a stateful iterable with JSON values, and its state as JSON; iterated in one thread.

    The state is that after the items read so far: a reader that is ahead of the writer takes it at the end of every
    batch, and stores it once the batch is stored.
    """

    _source: Stateful

    def __init__(self, source: Stateful) -> None:
        """Store the iterable."""
        super().__init__(source)

    def __iter__(self) -> Iterator[object]:
        try:
            yield from super().__iter__()
        finally:
            if _is_of_datasets(self._source):  # else every later iteration would begin at the loaded state too
                self._source.load_state_dict(None)

    def state_dict(self) -> Any:
        """Return a copy of the state; None if it would not be the same after it was stored as JSON."""
        state = self._source.state_dict()
        try:
            copy = json.loads(json.dumps(state, allow_nan=False))
        except (TypeError, ValueError):
            return None
        return copy if copy == state else None

    def load_state_dict(self, state: Any) -> None:
        """Let the next iteration begin after the items of a state."""
        self._source.load_state_dict(state)


def plain_item(item: object) -> object:
    """Return a mapping with JSON values and without None, as a row of Parquet is read; other items unchanged.

    A mapping with a value that cannot be read becomes a DocumentError. Values that have no form in JSON, such as
    images, stay, and the store refuses them by their key.
    """
    if not isinstance(item, Mapping):
        return item
    values = {name: read_value(value, str(name)) for name, value in item.items() if value is not None}
    row = {name: value for name, value in values.items() if value is not None and not isinstance(value, Unreadable)}
    reasons = [value.reason for value in values.values() if isinstance(value, Unreadable)]
    if not reasons:
        return row
    identifier = row.get("id", "")
    return DocumentError(reasons[0], str(identifier) if isinstance(identifier, str | int) else "", value=row)
