"""The store: sends what ``wire`` makes and reads what comes back; Milvus Lite and servers differ in how values stand in expressions, and in flushing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from st_connectors.errors import NotFound, Refused, SchemaMismatch, StoreError, Unsupported
from st_connectors.filters import Filter
from st_connectors.milvus import faults, wire
from st_connectors.milvus.adopted import theirs
from st_connectors.milvus.client import Opened, border
from st_connectors.milvus.expressions import Expression, after, rendered
from st_connectors.milvus.layout import Layout, collection_name
from st_connectors.milvus.rows import Ours, Rows, hits
from st_connectors.schema import FilterKind, Schema, schema_difference
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest

__all__ = ["MilvusStore", "adopted", "collections", "opened"]

FLUSH_FROM = 200
"""Rows of Milvus Lite outside of any segment. It compares those one by one in Python: 30 ms for so many, seconds for 20,000."""


def read_schema(held: Opened, collection: str, operation: str) -> tuple[Schema, Layout] | None:
    """The schema of a collection and its layout, or None where there is none; ``SchemaMismatch`` where it is not one of ours."""
    try:
        with border(held.name, operation):
            description = held.client.describe_collection(collection_name(collection), **held.once)
    except NotFound:
        return None
    found = wire.stored(description)
    if found is None:
        raise SchemaMismatch(
            f"the collection {collection!r} was not made by st-connectors: use it as it is with Index.adopt, or choose another name",
            store=held.name,
            operation=operation,
        )
    return found


def opened(held: Opened, collection: str, where: str, capabilities: Capabilities) -> MilvusStore:
    """One of our collections by its name; ``NotFound`` where there is none, and nothing stays open then."""
    try:
        schema, laid = _found(held, collection, where)
        store = MilvusStore(held, Ours(schema, laid), capabilities)
        store.load("connect")
    except BaseException:
        held.close()
        raise
    return store


def _found(held: Opened, collection: str, where: str) -> tuple[Schema, Layout]:
    found = read_schema(held, collection, "connect")
    if found is None:
        raise _absent(held, collection, where, "connect")
    return found


def _absent(held: Opened, collection: str, where: str, operation: str) -> NotFound:
    told = f"there is no collection {collection!r} at {where}; create it, or check the name"
    return NotFound(told, store=held.name, operation=operation)


def adopted(
    held: Opened, collection: str, where: str, asked: Mapping[str, FilterKind], capabilities: Capabilities
) -> MilvusStore:
    """A collection that somebody else made, as it is, brought into memory where it was not; ``NotFound`` where there is none."""
    try:
        try:
            with border(held.name, "adopt"):
                description = held.client.describe_collection(collection, **held.once)
                names = held.client.list_indexes(collection, **held.once)
                indexes = [held.client.describe_index(collection, name, **held.once) for name in names]
        except NotFound as error:
            raise _absent(held, collection, where, "adopt") from error
        store = MilvusStore(
            held, theirs(collection, description, [each for each in indexes if each], asked), capabilities
        )
        with border(held.name, "adopt"):
            held.client.load_collection(collection, **held.once)
    except BaseException:
        held.close()
        raise
    return store


def collections(held: Opened) -> list[str]:
    """The names of our collections."""
    try:
        with border(held.name, "collections"):
            names = held.client.list_collections(**held.once)
            found = [wire.stored(held.client.describe_collection(name, **held.once)) for name in names]
    finally:
        held.close()
    return [each[0].collection for each in found if each is not None]


class MilvusStore:
    """One collection; the adapter without its wrappers. Safe in threads."""

    def __init__(self, held: Opened, rows: Rows, capabilities: Capabilities) -> None:
        """Nothing is sent. ``rows`` say how a collection is laid out that exists, or is to be made."""
        self._held = held
        self._client = held.client
        self._rows = rows
        self._collection = rows.collection
        self._most = capabilities
        self._capabilities = rows.capabilities(capabilities)
        self._closed = False

    @property
    def schema(self) -> Schema:
        """The schema as asked for, which ``create`` makes sure is the stored one."""
        return self._rows.schema

    @property
    def capabilities(self) -> Capabilities:
        """What this way in, with this index, can do."""
        return self._capabilities

    def create(self) -> None:
        """Make the collection with its indexes and load it, or find it with the same schema; one that was adopted is there."""
        if not isinstance(self._rows, Ours):
            return
        # Milvus Lite 3.2.2 makes a collection's folder without asking whether another thread is at it.
        with self._held.writing:
            found = read_schema(self._held, self.schema.collection, "create")
            if found is None:
                self._create(self._rows)
                found = read_schema(self._held, self.schema.collection, "create")
            if found is not None:
                difference = schema_difference(found[0], self.schema)
                if difference:
                    raise SchemaMismatch(difference, store=self._held.name, operation="create")
                self._rows = Ours(self.schema, found[1])
                self._capabilities = self._rows.capabilities(self._most)
            self._load(self._rows, "create")

    def _create(self, rows: Ours) -> None:
        """Make the collection, unless another process was quicker."""
        shape = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for column in wire.columns(rows.schema, packed=rows.laid.packed):
            shape.add_field(column.name, DataType[column.type], **_typed(column.params))
            if column.words_of is not None:
                shape.add_function(Function(f"bm25_{column.name}", FunctionType.BM25, [column.words_of], [column.name]))
        # pymilvus 3.0 leaves the consistency of a scan to the collection's own, whatever is asked; every other read says its own.
        held = {"properties": {wire.METADATA: wire.metadata(rows.schema, rows.laid)}, "consistency_level": "Strong"}
        try:
            with border(self._held.name, "create"):
                self._client.create_collection(self._collection, schema=shape, **held, **self._held.once)
        except StoreError as error:
            if not faults.is_already_there(error):
                raise

    def load(self, operation: str) -> None:
        """Make one of our collections searchable."""
        if isinstance(self._rows, Ours):
            self._load(self._rows, operation)

    def _load(self, rows: Ours, operation: str) -> None:
        """Make the collection searchable, with indexes where whoever made it did not come so far."""
        try:
            with border(self._held.name, operation):
                self._index(rows)
        except StoreError as error:
            if not faults.is_already_there(error):
                raise
        with border(self._held.name, operation):
            self._client.load_collection(self._collection, **self._held.once)

    def _index(self, rows: Ours) -> None:
        there = set(self._client.list_indexes(self._collection, **self._held.once))
        lacking = [index for index in self._indexes(rows) if index.column not in there]
        if not lacking:
            return
        params = IndexParams()
        for index in lacking:
            params.add_index(index.column, index.type, index.column, **_metric(index), params=dict(index.params))
        self._client.create_index(self._collection, params, sync=False, **self._held.once)

    def _indexes(self, rows: Ours) -> list[wire.Index]:
        made = wire.indexes(rows.schema, rows.laid.dense)
        return made if self._held.lite else [*made, *wire.filter_indexes(rows.schema)]

    def drop(self) -> None:
        """Remove the collection, if it is ours."""
        if not isinstance(self._rows, Ours):
            told = "the collection was adopted, not made here: remove it with the tool that made it"
            raise Unsupported(told, store=self._held.name, operation="drop")
        if read_schema(self._held, self.schema.collection, "drop") is None:
            return
        with self._held.writing, border(self._held.name, "drop"):
            self._client.drop_collection(self._collection, **self._held.once)
        self._held.unflushed.pop(self._collection, None)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Write whole rows, acknowledged when they are in the log."""
        rows: list[dict[str, Any]] = []
        rejected: list[Rejected] = []
        for position, record in enumerate(records):
            try:
                rows.append(self._rows.row(record))
            except ValueError as error:
                refused = Refused(str(error), store=self._held.name, operation="upsert")
                refused.__cause__ = error
                rejected.append(Rejected(position, record.id, refused))
        if rows:
            with self._held.writing, border(self._held.name, "upsert"):
                self._put(rows)
            self._wrote(len(rows))
        return rejected

    def _put(self, rows: list[dict[str, Any]]) -> None:
        """Send rows; ours, which all have the same columns, column by column: pymilvus 3.0 makes a message of them in less than half the time."""
        if not isinstance(self._rows, Ours):
            self._client.upsert(self._collection, rows, **self._held.once)
            return
        types = {column.name: column.type for column in wire.columns(self.schema, packed=self._rows.laid.packed)}
        columns = [
            {"name": name, "type": DataType[types[name]], "values": [row[name] for row in rows]} for name in rows[0]
        ]
        # pymilvus 3.0.2 has two public ways: MilvusClient.upsert takes rows only, and orm.Collection, which takes columns, only finds connections by an
        # alias, which a MilvusClient has not. The handler below both has taken columns since 2.0, and the context, with the database, since 2.6.8.
        context = self._client._generate_call_context()  # noqa: SLF001
        self._client._get_connection().upsert(self._collection, columns, context=context, **self._held.once)  # noqa: SLF001

    def _wrote(self, rows: int) -> None:
        if self._held.lite:
            self._held.unflushed[self._collection] = self._held.unflushed.get(self._collection, 0) + rows

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows by their ids."""
        with self._held.writing, border(self._held.name, "delete"):
            self._client.delete(self._collection, **self._where(self._rows.ids(ids)), **self._held.once)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Fetch rows and put them in the order asked."""
        answers = self._query("get", self._rows.ids(ids), self._rows.outputs(parts))
        found = {each.id: each for each in (self._rows.record(answer) for answer in answers)}
        return [found[each] for each in ids if each in found]

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Send requests that differ only in their vectors as one, each column's and filter's for itself."""
        plans = [self._rows.plan(request) for request in requests]
        groups: dict[str, list[int]] = {}
        for position, plan in enumerate(plans):
            if plan is not None:
                groups.setdefault(plan.key, []).append(position)
        if not groups:
            self._check("search")
        found: dict[int, list[Hit]] = {}
        for positions in groups.values():
            answers = self._search([plan for position in positions if (plan := plans[position]) is not None])
            for position, answer in zip(positions, answers, strict=True):
                found[position] = hits(self._rows, requests[position], answer)
        return [found.get(position, []) for position in range(len(requests))]

    def _search(self, plans: Sequence[wire.Plan]) -> list[Sequence[Mapping[str, Any]]]:
        """Send plans as one request, and those once more, among fewer rows, that found rows without the vector."""
        answers = list(self._send(plans))
        again = [at for at, answer in enumerate(answers) if wire.lacking(plans[at], answer)]
        if again:
            for at, answer in zip(again, self._send([wire.filtered(plans[at]) for at in again]), strict=True):
                answers[at] = answer
        return answers

    def _send(self, plans: Sequence[wire.Plan]) -> Sequence[Sequence[Mapping[str, Any]]]:
        first = plans[0]
        with border(self._held.name, "search"):
            answers: Sequence[Sequence[Mapping[str, Any]]] = self._client.search(
                self._collection,
                data=[plan.data for plan in plans],
                anns_field=first.column,
                search_params=dict(first.params),
                limit=first.limit,
                output_fields=list(first.outputs),
                consistency_level=self._held.consistency,
                **self._where(first.where),
                **self._held.once,
            )
        return answers

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Page by primary key: each page begins behind the last id of the one before."""
        passing = self._passing(where, self._rows.everything())
        outputs, asked = self._rows.outputs(parts), passing
        while True:
            # ``iterator`` asks for the order of the keys; pymilvus's own iterator writes ids into its expressions as they are.
            answers = self._query("scan", asked, outputs, limit=batch, iterator="True", reduce_stop_for_best="True")
            yield from (self._rows.record(answer) for answer in answers)
            if len(answers) < batch:
                return
            asked = after(answers[-1][self._rows.key], passing, self._rows.key)

    def count(self, where: Filter | None = None) -> int:
        """Count exactly."""
        return self._count("count", where)

    def _count(self, operation: str, where: Filter | None = None, **options: Any) -> int:
        passing = self._passing(where, Expression(""))
        answers = self._query(operation, passing, ["count(*)"], **options)
        return int(answers[0]["count(*)"])

    def refresh(self) -> None:
        """A server is asked once at strong consistency; Milvus Lite shows writes at once, and brings many of them into a segment."""
        if self._held.unflushed.get(self._collection, 0) >= FLUSH_FROM:
            self._flush("refresh")
        else:
            self._count("refresh", consistency_level="Strong")

    def _flush(self, operation: str) -> None:
        self._held.unflushed.pop(self._collection, None)
        with self._held.writing, border(self._held.name, operation):
            self._client.flush(self._collection, **self._held.once)

    def close(self) -> None:
        """Give back the client, unless it was handed in."""
        if not self._closed:
            self._closed = True
            self._held.close()

    def _query(
        self, operation: str, where: Expression, outputs: Sequence[str], **options: Any
    ) -> Sequence[Mapping[str, Any]]:
        options = {"consistency_level": self._held.consistency, **options, **self._where(where), **self._held.once}
        with border(self._held.name, operation):
            answers: Sequence[Mapping[str, Any]] = self._client.query(
                self._collection, output_fields=list(outputs), **options
            )
        return answers

    def _passing(self, where: Filter | None, everything: Expression) -> Expression:
        return everything if where is None else self._rows.where(where)

    def _where(self, where: Expression) -> dict[str, Any]:
        if self._held.lite:
            return {"filter": rendered(where)}
        return {"filter": where.text, "filter_params": dict(where.values)}

    def _check(self, operation: str) -> None:
        """Raise ``NotFound`` where there is no collection."""
        with border(self._held.name, operation):
            self._client.describe_collection(self._collection, **self._held.once)


def _typed(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: DataType[value] if name == "element_type" else value for name, value in params.items()}


def _metric(index: wire.Index) -> dict[str, str]:
    return {"metric_type": index.metric} if index.metric else {}
