"""The protocol of the drivers: one collection reached through one driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from st_connectors.errors import StoreError
from st_connectors.qdrant.layout import PointId
from st_connectors.qdrant.wire import Point
from st_connectors.store import Capabilities

__all__ = ["Engine", "translate_errors"]

Body = dict[str, Any]


class Engine(Protocol):
    """One collection reached through one driver.

    Methods raise the driver's errors, which ``translate`` converts to ours.
    """

    name: str
    """The address's scheme, for messages."""
    capabilities: Capabilities

    def translate(self, error: Exception, operation: str) -> StoreError | None:
        """Translate an error of the driver; return None for any other error."""
        ...

    def metadata(self) -> Mapping[str, Any] | None:
        """Return the collection's metadata, or None if there is no collection."""
        ...

    def description(self) -> Body | None:
        """Return Qdrant's description of the vectors, or None if there is no collection."""
        ...

    def indexed(self) -> dict[str, str]:
        """Return the payload indexes, from JSON path to kind."""
        ...

    def open(self) -> None:
        """Verify that the collection can be used."""
        ...

    def create(self, body: Body, indexes: Mapping[str, str]) -> None:
        """Create the collection and its payload indexes, unless the collection exists."""
        ...

    def drop(self) -> None:
        """Remove the collection, if it exists."""
        ...

    def upsert(self, points: Iterable[Body]) -> None:
        """Write points, which are iterated once."""
        ...

    def delete(self, ids: Sequence[PointId]) -> None:
        """Remove points."""
        ...

    def retrieve(self, ids: Sequence[PointId], body: Body) -> Sequence[Point]:
        """Return points by id; ``body`` selects payload and vectors."""
        ...

    def query(self, bodies: Sequence[Body]) -> Sequence[Sequence[Any]]:
        """Return the results of queries, in order."""
        ...

    def scroll(self, body: Body) -> tuple[Sequence[Point], PointId | None]:
        """Return one page, and the id with which the next one starts."""
        ...

    def count(self, body: Body | None) -> int:
        """Count the points that pass a filter."""
        ...

    def refresh(self) -> None:
        """Make earlier writes visible and durable."""
        ...

    def close(self) -> None:
        """Release the driver's resources."""
        ...


@contextmanager
def translate_errors(engine: Engine, operation: str) -> Iterator[None]:
    """Raise the driver's errors as ours."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        translated = engine.translate(error, operation)
        if translated is None:
            raise
        raise translated from error
