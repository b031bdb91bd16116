"""The protocol that hides the differences between the drivers of Qdrant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from st_connectors.errors import StoreError
from st_connectors.plugin import Description
from st_connectors.qdrant.layout import PointId
from st_connectors.qdrant.wire import Point
from st_connectors.store import Capabilities

__all__ = ["Engine", "translate_errors"]

Body = dict[str, Any]


class Engine(Protocol):
    """Access to one collection through one driver.

    Methods raise the errors of the driver, which ``translate`` converts to store errors.
    """

    name: str
    """The scheme of the address, used in messages."""
    capabilities: Capabilities

    def translate(self, error: Exception, operation: str) -> StoreError | None:
        """Translate an error of the driver; return None for any other error."""
        ...

    def sibling(self, collection: str) -> Engine:
        """Return the engine of another collection, over the same connection; it need not be closed."""
        ...

    def metadata(self) -> Mapping[str, Any] | None:
        """Return the metadata of the collection, or None if the collection does not exist."""
        ...

    def description(self) -> Body | None:
        """Return Qdrant's description of the vectors, or None if the collection does not exist."""
        ...

    def own_name(self) -> str:
        """Return the name of the collection, whose name in this engine can be an alias."""
        ...

    def describe(self) -> Description | None:
        """Return the names, size and settings of the collection, or None if it does not exist."""
        ...

    def indexed(self) -> dict[str, str]:
        """Return the payload indexes as a mapping from JSON path to kind."""
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

    def create_indexes(self, indexes: Mapping[str, str]) -> None:
        """Create payload indexes; an existing index stays unchanged."""
        ...

    def set_payloads(self, payloads: Mapping[PointId, Body]) -> None:
        """Add keys to the payloads of points, and replace keys that exist."""
        ...

    def update(self, metadata: Body, quantizations: Mapping[str, Body | None]) -> None:
        """Replace the schema in the metadata of the collection, and the quantization of some dense vectors.

        A quantization of None means full vectors only.
        """
        ...

    def upsert(self, points: Iterable[Body]) -> None:
        """Write points; ``points`` is iterated only once."""
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
        """Return one page, and the id at which the next page starts."""
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
    """Convert errors of the driver that the block raises to store errors; ``operation`` is used in messages."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        translated = engine.translate(error, operation)
        if translated is None:
            raise
        raise translated from error
