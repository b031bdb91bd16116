"""The store: sends what ``wire`` makes and reads what comes back; edge, local mode and servers differ only in their engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from st_connectors.errors import NotFound, Permanent, Refused, SchemaMismatch, StoreError, Unsupported
from st_connectors.filters import Filter
from st_connectors.qdrant import wire
from st_connectors.qdrant.layout import Hidden, Layout, Plain, PointId
from st_connectors.schema import FilterKind, Schema, kind_of, schema_difference
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest

__all__ = ["Engine", "QdrantStore", "adopted", "opened"]

Body = dict[str, Any]


class Engine(Protocol):
    """One collection behind one way in. Methods raise the driver's errors, which ``translate`` turns into ours."""

    name: str
    """The address's scheme, for messages."""
    capabilities: Capabilities

    def translate(self, error: Exception, operation: str) -> StoreError | None:
        """Our error for the driver's; None for one that is not the driver's."""
        ...

    def metadata(self) -> Mapping[str, Any] | None:
        """The collection's metadata, or None where there is no collection."""
        ...

    def description(self) -> Body | None:
        """Qdrant's description of the vectors, or None where there is no collection."""
        ...

    def indexed(self) -> dict[str, str]:
        """Payload indexes: JSON path to kind."""
        ...

    def open(self) -> None:
        """Make sure that the collection can be used."""
        ...

    def create(self, body: Body, indexes: Mapping[str, str]) -> None:
        """Make the collection and its payload indexes; nothing where it is there already."""
        ...

    def drop(self) -> None:
        """Remove the collection; nothing where there is none."""
        ...

    def upsert(self, points: Iterable[Body]) -> None:
        """Write points, which are read once."""
        ...

    def delete(self, ids: Sequence[PointId]) -> None:
        """Remove points."""
        ...

    def retrieve(self, ids: Sequence[PointId], body: Body) -> Sequence[wire.Answer]:
        """Points by id; ``body`` selects payload and vectors."""
        ...

    def query(self, bodies: Sequence[Body]) -> Sequence[Sequence[Any]]:
        """Answers to queries, in order."""
        ...

    def scroll(self, body: Body) -> tuple[Sequence[wire.Answer], PointId | None]:
        """One page, and the id that the next begins with."""
        ...

    def count(self, body: Body | None) -> int:
        """How many points pass a filter."""
        ...

    def refresh(self) -> None:
        """Bring earlier writes to where they are seen and last."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


def read_schema(engine: Engine, collection: str, operation: str) -> Schema | None:
    """The schema stored with a collection, or None where there is no such collection; ``SchemaMismatch`` where it is not one of ours."""
    with border(engine, operation):
        metadata = engine.metadata()
    if metadata is None:
        return None
    if wire.METADATA not in metadata:
        raise SchemaMismatch(
            f"the collection {collection!r} was not made by st-connectors; use Index.adopt to search or fill it as it is",
            store=engine.name,
            operation=operation,
        )
    return Schema.from_json(metadata[wire.METADATA])


def opened(engine: Engine, collection: str, where: str) -> QdrantStore:
    """One of our collections by its name; ``NotFound`` where there is none, and nothing stays open then."""
    with _closing_on_error(engine):
        schema = read_schema(engine, collection, "connect")
        if schema is None:
            raise _not_found(engine, collection, where, "connect")
        with border(engine, "connect"):
            engine.open()
        return QdrantStore(engine, schema)


def adopted(engine: Engine, collection: str, where: str, asked: Mapping[str, FilterKind]) -> QdrantStore:
    """A collection that somebody else made, as it is; ``NotFound`` where there is none."""
    with _closing_on_error(engine), border(engine, "adopt"):
        description = engine.description()
        if description is None:
            raise _not_found(engine, collection, where, "adopt")
        schema = wire.adopted_schema(collection, description, engine.indexed(), asked)
        return QdrantStore(engine, schema, Plain(schema.filterable))


@contextmanager
def border(engine: Engine, operation: str) -> Iterator[None]:
    """Turn the driver's errors into ours, once."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        ours = engine.translate(error, operation)
        if ours is None:
            raise
        raise ours from error


@contextmanager
def _closing_on_error(engine: Engine) -> Iterator[None]:
    """Close what was opened if there will be no store to close it."""
    try:
        yield
    except BaseException:
        engine.close()
        raise


class QdrantStore:
    """One collection; the adapter without its wrappers. Safe in threads."""

    def __init__(self, engine: Engine, schema: Schema, layout: Layout | None = None) -> None:
        """Nothing is sent. ``layout`` is given for collections that are not ours."""
        self._engine = engine
        self._schema = schema
        self._layout = Hidden(schema) if layout is None else layout
        self._ours = layout is None
        precision = engine.capabilities.fields
        self._capabilities = replace(
            engine.capabilities, fields={name: precision[kind_of(field).value] for name, field in schema.fields.items()}
        )
        self._closed = False

    @property
    def schema(self) -> Schema:
        """The schema as asked for, which ``create`` makes sure is the stored one."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """What this way in can do."""
        return self._capabilities

    def create(self) -> None:
        """Make the collection with its payload indexes, or find it with the same schema."""
        if not self._ours:
            return
        stored = read_schema(self._engine, self._schema.collection, "create")
        if stored is None:
            with self._border("create"):
                self._engine.create(wire.collection_body(self._schema), self._layout.indexes())
            # Whoever was quicker has made it; what is there now counts.
            stored = read_schema(self._engine, self._schema.collection, "create")
        difference = None if stored is None else schema_difference(stored, self._schema)
        if difference:
            raise SchemaMismatch(difference, store=self._engine.name, operation="create")

    def drop(self) -> None:
        """Remove the collection, if it is ours."""
        if not self._ours:
            told = "the collection was adopted, not made here: remove it with the tool that made it"
            raise Unsupported(told, store=self._engine.name, operation="drop")
        if read_schema(self._engine, self._schema.collection, "drop") is None:
            return
        with self._border("drop"):
            self._engine.drop()

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Write whole points, acknowledged when they are in the write-ahead log and visible."""
        kept, rejected = [], []
        for position, record in enumerate(records):
            if not self._layout.takes(record.id):
                told = f"an adopted collection takes unsigned integers and UUIDs as ids, not {record.id!r}"
                error = Refused(told, store=self._engine.name, operation="upsert")
                rejected.append(Rejected(position, record.id, error))
            else:
                kept.append(record)
        if kept:
            with self._border("upsert"):
                # Made one by one: to hold a thousand at once takes half as long again.
                self._engine.upsert(wire.point(self._schema, self._layout, record) for record in kept)
        return rejected

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        with self._border("delete"):
            self._engine.delete(list(self._points(ids).values()))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Fetch points and put them in the order asked."""
        with self._border("get"):
            answers = self._engine.retrieve(list(self._points(ids).values()), self._selectors(parts))
        found = {each.id: each for each in (wire.record(self._schema, self._layout, answer) for answer in answers)}
        names = {given: self._layout.record_id(given) for given in ids}
        return [found[names[given]] for given in ids if names[given] in found]

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Send all requests that can match anything as one batch."""
        bodies = [wire.query_body(self._schema, self._layout, request) for request in requests]
        with self._border("search"):
            answers = iter(self._engine.query([body for body in bodies if body is not None]))
        return [
            [] if body is None else wire.hits(self._schema, self._layout, request, next(answers))
            for request, body in zip(requests, bodies, strict=True)
        ]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Scroll by point id, page after page."""
        body: Body = {"limit": batch, **self._selectors(parts), **self._filter(where)}
        while True:
            with self._border("scan"):
                answers, following = self._engine.scroll(body)
            yield from (wire.record(self._schema, self._layout, answer) for answer in answers)
            if following is None:
                return
            body = body | {"offset": following}

    def count(self, where: Filter | None = None) -> int:
        """Count exactly."""
        with self._border("count"):
            return self._engine.count(self._filter(where).get("filter"))

    def refresh(self) -> None:
        """Writes are visible when acknowledged; edge also brings them to disk and its indexes up to date."""
        with self._border("refresh"):
            self._engine.refresh()

    def close(self) -> None:
        """Close what was opened for this store."""
        if not self._closed:
            self._closed = True
            self._engine.close()

    @contextmanager
    def _border(self, operation: str) -> Iterator[None]:
        if self._closed:
            raise Permanent("the store is closed; open it again", store=self._engine.name, operation=operation)
        with border(self._engine, operation):
            yield

    def _points(self, ids: Sequence[str]) -> dict[str, PointId]:
        """Point ids by record id, each once; an id that no point can have is left out."""
        points = {given: self._layout.point_id(given) for given in ids}
        return {given: point for given, point in points.items() if point is not None}

    def _selectors(self, parts: Parts) -> Body:
        return {
            "with_payload": self._layout.selector(payload=Parts.PAYLOAD in parts),
            "with_vector": wire.vector_selector(self._schema, parts),
        }

    def _filter(self, where: Filter | None) -> Body:
        return {} if where is None else {"filter": wire.filter_to_qdrant(where, self._layout)}


def _not_found(engine: Engine, collection: str, where: str, operation: str) -> NotFound:
    """The error for a collection that is not there."""
    told = f"there is no collection {collection!r} at {where}: create it first, or look at its spelling"
    return NotFound(told, store=engine.name, operation=operation)
