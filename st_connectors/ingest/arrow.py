"""Write Arrow tables and record batches, with vectors that are already encoded, to a store.

The core that engines for distributed processing share: each of their tasks opens its own store and calls
:func:`write_arrow` with its part of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from st_connectors._matching import values_at
from st_connectors.arguments import check_int
from st_connectors.chunks import CHUNK_KEY, parent_of, window_count
from st_connectors.errors import Refused, StoreError, Unsupported
from st_connectors.ingest.arrow_vectors import (
    Cell,
    check_dense_type,
    check_sparse_types,
    read_dense,
    read_sparse,
    vectors_to_arrow,
)
from st_connectors.ingest.documents import Document, DocumentError, Place, document_id
from st_connectors.ingest.pipeline import Progress
from st_connectors.ingest.report import IngestFailed, IngestInterrupted, IngestReport, Refusal, Tally
from st_connectors.ingest.seen import SeenIds
from st_connectors.ingest.sources.arrow_values import values_of
from st_connectors.ingest.sources.plain_values import Unreadable
from st_connectors.ingest.windows import Prepared, StaleWindows
from st_connectors.schema import DenseField, Schema, TextField
from st_connectors.store import Record, Rejected, Store, Vector

__all__ = ["RECORD_ID", "REFUSED", "ArrowLayout", "Batches", "vectors_to_arrow", "write_arrow"]

RECORD_ID = "_record_id"
"""The column of the ids of records, which differ from those of source rows where texts are split into windows."""
REFUSED = "_refused"
"""The column of reasons why rows cannot be stored; null for other rows."""

Batches: TypeAlias = Any
"""A table, a record batch, or an iterable of either, such as a RecordBatchReader."""


@dataclass(frozen=True, slots=True)
class ArrowLayout:
    """The columns of the id, the text, the vectors and the payload.

    ``vectors`` maps vector fields to their columns; by default each field is read from the column of its name. A dense
    vector is a list of numbers. A sparse vector is a struct of the lists ``indices`` and ``values``, or a pair of
    columns of lists, ``("term_ids", "weights")``. ``text`` is the column that is stored under the payload key of texts.
    ``payload`` lists the further columns to store; by default all that have no other role. Nulls are left out.

    If a table has the columns that :class:`st_connectors.encoder.Encoder` adds, ``_record_id`` is read instead of
    ``id``, rows with a reason in ``_refused`` are refused, and the position of windows is stored. Windows that a
    document has no longer are then deleted.
    """

    id: str = "id"
    text: str | None = None
    vectors: Mapping[str, str | tuple[str, str]] | None = None
    payload: Sequence[str] | None = None


def write_arrow(
    store: Store,
    batches: Batches,
    layout: ArrowLayout | None = None,
    *,
    batch: int = 1000,
    source: str = "table",
    max_refused: int = 1000,
    on_refused: Callable[[Refusal], None] | None = None,
    progress: Progress | None = None,
    refresh: bool = True,
) -> IngestReport:
    """Store the rows of Arrow tables or record batches; a row replaces a stored record with the same id.

    A row without an id, with a value that cannot be read, or that the store refuses is reported with its number in
    ``source``, counted from 1 over all batches; all other rows are stored. Values become JSON values as in Parquet
    files. At most ``batch`` rows are converted at a time. ``on_refused`` receives every refusal. With ``refresh``
    False, the caller makes the writes visible to searches.

    Raises ValueError if the columns do not fit the layout and the schema. Raises :class:`IngestFailed` with the report
    so far if the store fails: a temporary error that outlives the store's retries is never a refusal. To go on after
    it, write the same rows again.
    """
    stale = StaleWindows(store, are_splitting=False)
    run = _Run(store, layout or ArrowLayout(), source, stale, SeenIds(), Tally(max_refused), on_refused, progress)
    size = check_int(batch, 1, "batch")
    first = 0
    try:
        for part in _parts(batches, size):
            run.write(part, first)
            first += part.num_rows
        if refresh:
            store.refresh()
    except KeyboardInterrupt as error:
        raise IngestInterrupted(run.tally.report()) from error
    except Exception as error:
        if isinstance(error, _LayoutError) and not first:
            raise ValueError(str(error)) from None
        raise IngestFailed(run.tally.report(), error) from error
    return run.tally.report()


class _LayoutError(ValueError):
    """The columns of a batch do not fit the layout and the schema."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """The roles of a batch's columns, with the payload key of each column that is stored."""

    id: str
    source_id: str
    refused: str | None
    vectors: Mapping[str, tuple[str, ...]]
    payload: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _BadRow:
    """A row that is no record: the reason, its id or "", the values that can be read, and the stage that refused it."""

    reason: str
    id: str
    document: Mapping[str, Any]
    stage: str = "read"


@dataclass(frozen=True, slots=True)
class _Run:
    store: Store
    layout: ArrowLayout
    source: str
    stale: StaleWindows
    seen: SeenIds
    tally: Tally
    on_refused: Callable[[Refusal], None] | None
    progress: Progress | None

    def write(self, batch: Any, first: int) -> None:
        """Write the rows of one record batch and count them; raise the error that stops the write.

        ``first`` is the position of the batch's first row.
        """
        columns = _resolve(self.layout, batch.schema, self.store.schema)
        records: list[tuple[int, Record]] = []
        refused: list[Refusal] = []
        for position, item in enumerate(_records(batch, columns, self.store.schema), first):
            if isinstance(item, Record):
                records.append((position, item))
            else:
                refused.append(_refuse_row(item, position, self.source))
        may_have_windows = CHUNK_KEY in columns.payload
        stale = self.stale.find(_documents(record for _, record in records)) if may_have_windows else []
        rejected = self.store.upsert([record for _, record in records]) if records else []
        if stale:
            self.store.delete(stale)
        stop = next((item.error for item in rejected if not _is_refusal(item.error)), None)
        refused += [
            _refuse_record(item, *records[item.position], self.source) for item in rejected if _is_refusal(item.error)
        ]
        failed = {item.position for item in rejected}
        stored = [record for at, (_, record) in enumerate(records) if at not in failed]
        self._count(len(stored) + len(refused) if stop else batch.num_rows, stored, refused)
        if stop is not None:
            raise stop

    def _count(self, read: int, stored: Sequence[Record], refused: Sequence[Refusal]) -> None:
        ordered = tuple(sorted(refused, key=lambda refusal: refusal.position))
        names = self.store.schema.filterable
        self.tally.add(
            IngestReport(
                read=read,
                confirmed=len(stored),
                records=len(stored),
                refused=ordered,
                refused_total=len(ordered),
                replaced=self.seen.add([record.id for record in stored]),
                filled={name: sum(_has_value(record, name) for record in stored) for name in names},
            )
        )
        if self.on_refused is not None:
            for refusal in ordered:
                self.on_refused(refusal)
        if self.progress is not None:
            self.progress(self.tally.report())


def _documents(records: Iterable[Record]) -> list[Prepared]:
    """Return the documents to which records belong, each with its number of windows."""
    counts = {parent_of(record.id, record.payload): window_count(record.payload) for record in records}
    documents = {name: Document(name, "") for name in counts}
    return [Prepared(0, documents[name], (documents[name],) * count) for name, count in counts.items()]


def _is_refusal(error: StoreError) -> bool:
    """Return whether an error concerns one record, so that the other records can still be stored."""
    return isinstance(error, Refused | Unsupported)


def _has_value(record: Record, name: str) -> bool:
    return any(value is not None for value in values_at(record.payload, name))


def _refuse_record(item: Rejected, position: int, record: Record, source: str) -> Refusal:
    document = {"id": record.id, **record.payload}
    place = Place(source, position + 1, "row")
    error = item.error
    return Refusal(position, record.id, error.message, type(error), place, document, "write", 1, error.status)


def _refuse_row(row: _BadRow, position: int, source: str) -> Refusal:
    place = Place(source, position + 1, "row")
    return Refusal(position, row.id, row.reason, DocumentError, place, row.document, row.stage)


def _parts(batches: Batches, size: int) -> Iterator[Any]:
    """Yield record batches of at most ``size`` rows; raise TypeError for values that are no tables."""
    import pyarrow as pa

    if isinstance(batches, pa.Table):
        yield from batches.to_batches(max_chunksize=size)
    elif isinstance(batches, pa.RecordBatch):
        yield from (batches.slice(start, size) for start in range(0, batches.num_rows, size))
    elif isinstance(batches, Iterable) and not isinstance(batches, str | bytes | Mapping):
        for each in batches:
            if not isinstance(each, pa.Table | pa.RecordBatch):
                raise TypeError(f"expected Arrow tables or record batches, got {type(each).__name__}")
            yield from _parts(each, size)
    else:
        raise TypeError(f"expected Arrow tables or record batches, got {type(batches).__name__}")


def _resolve(layout: ArrowLayout, arrow: Any, schema: Schema) -> _Columns:
    """Return the roles of columns; raise _LayoutError if one is missing, has another type or has two roles."""
    try:
        columns = _roles(layout, list(arrow.names), schema)
        for name, parts in columns.vectors.items():
            types = tuple(arrow.field(part).type for part in parts)
            if isinstance(schema.fields[name], DenseField):
                check_dense_type(types[0], parts[0])
            else:
                check_sparse_types(types, parts)
    except ValueError as error:
        raise _LayoutError(str(error)) from error
    return columns


def _roles(layout: ArrowLayout, names: Sequence[str], schema: Schema) -> _Columns:
    vectors = {name: _pair(column, name) for name, column in _vector_columns(layout, schema).items()}
    for name, parts in vectors.items():
        if name not in schema.fields or isinstance(schema.fields[name], TextField):
            raise ValueError(f"the collection {schema.collection!r} has no vector field {name!r}")
        if len(parts) == 2 and isinstance(schema.fields[name], DenseField):
            raise ValueError(f"dense field {name!r} has one column, not the pair {parts}")
    used = [layout.id, *(part for parts in vectors.values() for part in parts)]
    taken = {*used, layout.text, RECORD_ID, REFUSED}
    others = [name for name in names if name not in taken]
    listed = None if layout.payload is None else [*layout.payload, *(name for name in names if name == CHUNK_KEY)]
    payload = {name: name for name in (others if listed is None else listed)}
    if layout.text is not None:
        payload[layout.text] = _text_key(schema)
    for column in (*used, *payload):
        if names.count(column) != 1:
            state = "several columns" if column in names else "no column"
            hint = "; name the columns in ArrowLayout" if column not in names else ""
            raise ValueError(f"the table has {state} {column!r}; its columns are {', '.join(map(repr, names))}{hint}")
    if len(set(payload.values())) != len(payload):
        raise ValueError(f"two columns would be stored as {_text_key(schema)!r}: list the payload in ArrowLayout")
    identifier = RECORD_ID if RECORD_ID in names else layout.id
    return _Columns(identifier, layout.id, REFUSED if REFUSED in names else None, vectors, payload)


def _vector_columns(layout: ArrowLayout, schema: Schema) -> Mapping[str, str | tuple[str, str]]:
    if layout.vectors is not None:
        return layout.vectors
    return {name: name for name, spec in schema.fields.items() if not isinstance(spec, TextField)}


def _pair(column: str | tuple[str, str], name: str) -> tuple[str, ...]:
    if isinstance(column, str):
        return (column,)
    if len(column) != 2:
        raise ValueError(f"vector field {name!r} expects a column or a pair (indices, values), got {column!r}")
    return tuple(column)


def _text_key(schema: Schema) -> str:
    """Return the payload key of texts."""
    return next((spec.source for spec in schema.fields.values() if isinstance(spec, TextField)), "text")


def _records(batch: Any, columns: _Columns, schema: Schema) -> Iterator[Record | _BadRow]:
    """Yield one record per row, or why the row is none."""
    ids = values_of(batch.column(columns.id), columns.id)
    source_ids = ids if columns.id == columns.source_id else values_of(batch.column(columns.source_id), columns.id)
    reasons = [None] * len(ids) if columns.refused is None else batch.column(columns.refused).to_pylist()
    names = list(columns.payload.values())
    cells = [values_of(batch.column(column), column) for column in columns.payload]
    payloads = zip(*cells, strict=True) if cells else iter([()] * batch.num_rows)
    vectors = {name: _read_vectors(batch, parts, schema, name) for name, parts in columns.vectors.items()}
    for at, (identifier, reason, values) in enumerate(zip(ids, reasons, payloads, strict=True)):
        payload = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if reason is not None:
            yield _bad_row(source_ids[at], reason, payload, "encode")
        else:
            yield _record(identifier, {name: rows[at] for name, rows in vectors.items()}, payload, columns.id)


def _bad_row(identifier: Any, reason: str, payload: Mapping[str, Any], stage: str = "read") -> _BadRow:
    """Return a row that cannot be stored, with the values that can be read."""
    row = {"id": identifier, **payload}
    document = {key: value for key, value in row.items() if not isinstance(value, Unreadable)}
    return _BadRow(reason, str(identifier) if isinstance(identifier, str | int) else "", document, stage)


def _read_vectors(batch: Any, parts: tuple[str, ...], schema: Schema, name: str) -> list[Cell]:
    arrays = tuple(batch.column(part) for part in parts)
    return read_dense(arrays[0]) if isinstance(schema.fields[name], DenseField) else read_sparse(arrays)


def _record(identifier: Any, cells: Mapping[str, Cell], payload: dict[str, Any], id_column: str) -> Record | _BadRow:
    """Return a record, or why the row is none, with the values that can be read."""
    if identifier is None:
        return _bad_row(identifier, f"the id, column {id_column!r}, is null", payload)
    try:
        name = identifier.reason if isinstance(identifier, Unreadable) else document_id(identifier)
    except DocumentError as error:
        return _bad_row(identifier, error.reason, payload)
    vectors: dict[str, Vector] = {}
    reasons = [value.reason for value in (identifier, *payload.values()) if isinstance(value, Unreadable)]
    for key, cell in cells.items():
        if isinstance(cell, Unreadable):
            reasons.append(f"the vector of field {key!r}: {cell.reason}")
        elif cell is not None:
            vectors[key] = cell
    return _bad_row(identifier, "; ".join(reasons), payload) if reasons else Record(name, vectors, payload)
