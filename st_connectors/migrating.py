"""Give a collection other models, or settings that cannot be altered, while it is searched and written.

The new vectors are computed from the texts in the payloads, into a collection beside the present one: ``books~2``
beside ``books``. The present one stays complete. A migration switches by one write to the metadata of the first
collection, after which its name opens the new one; decision 24 describes the steps.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import quote

from st_connectors.chunks import parent_of, window_count, window_number
from st_connectors.comparing import Comparison, compare_indexes
from st_connectors.copying import batches, content_hash
from st_connectors.errors import NotFound, Refused, SchemaMismatch, StoreError
from st_connectors.index import Index
from st_connectors.ingest import IngestFailed, IngestInterrupted, IngestReport, Progress, Spans
from st_connectors.ingest.documents import DocumentError, as_document
from st_connectors.ingest.locks import FileInUseError, locked
from st_connectors.ingest.pipeline import check_documents
from st_connectors.ingest.report import Tally
from st_connectors.layers.records import check_record
from st_connectors.models import LazyModel, ModelOptions, stored_model
from st_connectors.registry import absolute_address, open_store, stored_schema
from st_connectors.schema import (
    DenseField,
    Field,
    FieldKind,
    FilterKind,
    Fusion,
    Metric,
    Migration,
    Quantization,
    Schema,
    SparseField,
    TextField,
    kind_of,
    schema_difference,
)
from st_connectors.schemas import altered_schema, lazy_models, metric_of, text_key_of
from st_connectors.split import Split, spans_of
from st_connectors.store import Parts, Record, Rejected, Store
from st_connectors.vectorise import FieldEncoder, tokenizer_of
from st_connectors.wanted import (
    Convert,
    Wanted,
    read_windows,
    same_documents,
    same_windows,
    split_anew,
    without_marks,
)
from st_core.protocols import ModelRef, TextEncoder
from st_core.vectors import SparseVector

if TYPE_CHECKING:
    from st_connectors.plugin import SchemaStore

__all__ = ["AlreadyMigratedError", "Estimate", "Migrator", "drop_old"]

MAX_PASSES = 5
"""The number of times that records are compared while others write; the pass of the switch does the rest."""
SAMPLE = 64
"""The number of records from which an estimate is computed, and of texts that serve as queries."""
QUERY_WORDS = 12
"""The number of words of a text that serve as a query."""


class AlreadyMigratedError(ValueError):
    """The collection has the models and settings that a migration was to give it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a migration will take, computed from a sample of records that was encoded on this machine.

    ``records`` are those of the collection, ``tokens`` those of all their texts (None if no model has a tokenizer),
    ``seconds`` the time in the encoders, and ``bytes`` the size of new vectors and payloads, without indexes.
    """

    records: int
    tokens: int | None
    tokens_per_second: float | None
    records_per_second: float
    seconds: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rate = f"{self.records_per_second:,.0f} records/s"
        counts = f"{self.records:,} records"
        if self.tokens is not None and self.tokens_per_second is not None:
            rate, counts = f"{self.tokens_per_second:,.0f} tokens/s", f"{counts} with {self.tokens:,} tokens"
        time_needed = timedelta(seconds=round(self.seconds))
        return f"{counts}, {rate} here, about {time_needed}, {self.bytes / 1e6:,.1f} MB of vectors and payloads"


class Migrator:
    """The migration of one collection. For use in one thread; close it, or use it in a ``with`` block.

    ``start`` begins a migration or continues an interrupted one, and ``back`` begins to undo the last one. Then call
    ``fill``, ``compare`` if you like, and ``switch``.
    """

    def __init__(
        self,
        index: Index,
        migration: Migration,
        target: Store,
        models: Mapping[str, LazyModel],
        *,
        spans: Spans | None = None,
        documents: Iterable[object] | None = None,
        is_back: bool = False,
    ) -> None:
        """Take the index of the present collection, and the store and models of the other; see ``start``.

        ``spans`` splits texts into other windows. ``is_back`` states that the windows of the other collection stay.
        """
        self._index = index
        self._migration = migration
        self._models = dict(models)
        self._documents = documents
        self._source = index.store
        self._target = target
        self._text_key = text_key_of(index.schema)
        names = [] if spans is not None else list(target.schema.fields)
        self._copied = tuple(name for name in names if _is_copied(index.schema, target.schema, name))
        self._parts = Parts.PAYLOAD | Parts.VECTORS if self._copied else Parts.PAYLOAD
        self._convert = self._conversion(spans, is_back=is_back)
        self._scanned = self._expected = 0

    @classmethod
    def start(
        cls,
        index: Index,
        *,
        dense: str | PathLike[str] | TextEncoder | None = None,
        sparse: str | PathLike[str] | TextEncoder | None = None,
        metric: Metric | str | None = None,
        quantization: Quantization | str | None = None,
        filterable: Mapping[str, FilterKind | str] | None = None,
        fusion: Fusion | None = None,
        split: Split | bool | None = None,
        documents: Iterable[object] | None = None,
        backend: str = "torch",
        dtype: str | None = None,
    ) -> Migrator:
        """Begin a migration of an open index, or continue one to the same models that was interrupted or undone.

        Nothing is written yet.

        ``dense`` and ``sparse`` are the new models, also for a field that the collection does not have yet; ``backend``
        and ``dtype`` apply to those passed by name. ``metric``, ``quantization``, ``filterable`` and ``fusion`` are
        those of the new collection; None leaves a setting as it is. Vectors of other fields are copied. The new
        collection is created by ``fill``, with the options of the index's address.

        ``split`` splits all documents into other windows: True by the default of ``Split``, and False into none.
        ``documents`` contain the texts of records that have none in their payloads, as ``Index.ingest`` reads them;
        they are iterated several times. Texts in payloads win, because they may be newer, and nothing else is read from
        ``documents``.

        Raises ValueError if there is nothing to change, AlreadyMigratedError if all of it is so already, Refused if the
        previous collection is still there or another one has the name of the new one, and SchemaMismatch if a migration
        to other models was interrupted.
        """
        if documents is not None:
            _check_repeatable(documents)
        migration = _migration_of(index)
        options = ModelOptions(backend, dtype)
        models = dict(index.models) | lazy_models(dense, sparse, options, index.schema.models)
        passed = {name for name, model in (("dense", dense), ("sparse", sparse)) if model is not None}
        altered = altered_schema(index.schema, filterable=filterable, fusion=fusion)
        schema = _with_models(altered, models, passed, metric)
        if quantization is not None:
            schema = altered_schema(schema, quantization=quantization)
        if split is None and replace(schema, fusion=index.schema.fusion) == index.schema:
            if passed or metric is not None or quantization is not None or filterable:
                raise AlreadyMigratedError(f"{index.collection!r} has these models and settings already")
            raise ValueError("nothing to migrate: pass another model, metric, quantization, filterable field or split")
        name = _next_name(migration)
        if migration.previous not in {None, name}:
            raise _refused(
                f"the collection before the last migration, {migration.previous!r}, is still there: drop it "
                "(st-connectors migrate --drop-old), or go back to it (--back)"
            )
        spans = _spans(split, models)
        schema = replace(schema, collection=name, migration=Migration(migration.root, name))
        return cls(index, migration, _opened_new(index, schema), models, spans=spans, documents=documents)

    @classmethod
    def back(
        cls,
        index: Index,
        *,
        dense: str | TextEncoder | None = None,
        sparse: str | TextEncoder | None = None,
    ) -> Migrator:
        """Open the collection before the last migration, to switch back to it.

        ``fill`` and ``switch`` bring what was written since to it, encoded by its models, which are loaded by name or
        passed here. Raises ValueError if there is no previous collection, or the last migration is undone already.
        """
        migration = _migration_of(index)
        is_undone = migration.previous == _next_name(migration)
        if migration.is_switching and (migration.previous is None or is_undone):
            _point(index, replace(migration, is_switching=False))
        if migration.previous is None:
            raise ValueError(f"{migration.root!r} has no previous collection to go back to")
        if is_undone:
            raise ValueError(
                f"the last migration of {migration.root!r} is undone already; run the same migration again to return "
                f"to {migration.previous!r}"
            )
        target = open_store(index.address, migration.previous, client=index.client, follow=False)
        options = ModelOptions(None, None)
        passed = lazy_models(dense, sparse, options, target.schema.models)
        try:
            models = {name: _model(target.schema, name, index, passed, options) for name in _vector_fields(target)}
        except BaseException:
            target.close()
            raise
        return cls(index, migration, target, models, is_back=True)

    @property
    def target(self) -> Store:
        """The store of the collection that is to become the current one."""
        return self._target

    def estimate(self, sample: int = SAMPLE) -> Estimate:
        """Encode a sample of records, and return what the migration will take."""
        total = self._source.count()
        records, texts_by_id = self._sample(sample)
        wanted = self._convert(records, texts_by_id)
        texts = _texts_of(wanted, self._text_key)
        encoders = self._encoders()
        began = time.perf_counter()
        converted = self._encoded(wanted, encoders)
        seconds = time.perf_counter() - began
        share = total / len(records) if records else 0.0
        tokens = _count_tokens(encoders, texts)
        return Estimate(
            records=total,
            tokens=None if tokens is None else round(tokens * share),
            tokens_per_second=None if tokens is None or not seconds else round(tokens / seconds, 1),
            records_per_second=round(len(records) / seconds, 1) if seconds else 0.0,
            seconds=round(seconds * share, 3),
            bytes=round(sum(map(_size_of, converted)) * share),
        )

    def fill(self, *, batch: int = 512, progress: Progress | None = None) -> IngestReport:
        """Bring the new collection up to date with the present one, which may be searched and written meanwhile.

        Records that are equal in both are skipped, so that an interrupted call continues. The report counts the records
        that were compared and written in all passes. Raises Refused for a record that has no text or that the store
        refuses, IngestFailed if a store or a model fails, IngestInterrupted on Ctrl-C, and FileInUseError if another
        process on this machine migrates the collection.
        """
        tally = Tally(0)
        try:
            with _locked(self._index):
                self._check_unmoved()
                self._target.create()
                self._fill_from_documents(tally, batch, progress)
                self._bring_up_to_date(tally, batch, progress)
        except FileInUseError:
            raise
        except KeyboardInterrupt as error:
            raise IngestInterrupted(tally.report()) from error
        except Exception as error:
            raise IngestFailed(tally.report(), error) from error
        return tally.report()

    def compare(
        self,
        queries: Mapping[str, str] | None = None,
        judgements: Mapping[str, Mapping[str, float]] | None = None,
        *,
        limit: int = 10,
    ) -> Comparison:
        """Search both collections, each with its models, and return how their hits, times and qualities compare.

        ``queries`` are texts by id, and ``judgements`` the gains of documents by the id of a query. Without queries,
        the first words of some texts are searched for.
        """
        other = Index(self._target, self._models, text_key=self._text_key)
        chosen = self._sampled_queries() if queries is None else queries
        return compare_indexes(self._index, other, chosen, judgements or {}, limit=limit)

    def switch(self, *, batch: int = 512, progress: Progress | None = None) -> None:
        """Bring the new collection up to date once more, and make it the one that its name opens, in one write.

        ``fill`` must have been called. Meanwhile ``Index.ingest`` and ``Index.delete`` raise an error, in all
        processes, rather than report a write that the new collection may lack. Indexes that stay open search the
        previous collection until they are opened again. Raises Refused if the numbers of records differ at the end,
        because other programs write; then, and after any other error, nothing has changed.
        """
        with _locked(self._index):
            self._check_unmoved()
            self._switch(batch, progress)

    def _switch(self, batch: int, progress: Progress | None) -> None:
        migration = self._migration
        _point(self._index, replace(migration, is_switching=True))
        try:
            self._bring_up_to_date(Tally(0), batch, progress)
            self._check_complete()
        except BaseException:
            with suppress(StoreError):  # a further migration, or --back, clears the mark
                _point(self._index, migration)
            raise
        _point(self._index, Migration(migration.root, self._target.schema.collection, migration.current))

    def close(self) -> None:
        """Close the store of the new collection; the index stays open."""
        self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_unmoved(self) -> None:
        """Raise SchemaMismatch if another migration has switched the name, which makes the target other people's."""
        root = self._migration.root
        schema = cast("SchemaStore", self._source).stored_schema(root)
        present = None if schema is None else schema.migration or Migration(root, root)
        expected = self._migration
        if present is None or (present.current, present.previous) != (expected.current, expected.previous):
            message = f"{root!r} was migrated or dropped by another program in the meantime: open it again"
            raise SchemaMismatch(message, store="index", operation="migrate")

    def _bring_up_to_date(self, tally: Tally, batch: int, progress: Progress | None) -> None:
        """Repeat passes until one changes nothing."""
        for _ in range(MAX_PASSES):
            if not self._pass(tally, batch, progress):
                return

    def _pass(self, tally: Tally, batch: int, progress: Progress | None) -> bool:
        """Write what is missing or different, delete what is no longer there, and return whether anything was."""
        self._source.refresh()
        self._target.refresh()
        self._scanned = self._expected = 0
        has_changed = False
        for records in batches(self._source.scan(parts=self._parts, batch=batch), batch):
            written, stored = self._write(self._convert(records, {}))
            self._scanned += len(records)
            self._expected += stored
            has_changed = has_changed or written > 0
            _count(tally, progress, len(records), written, stored - written)
        self._target.refresh()
        return self._delete_extra(batch) or has_changed

    def _fill_from_documents(self, tally: Tally, batch: int, progress: Progress | None) -> None:
        """Write the records whose texts are in the documents and not in their payloads."""
        for texts in _texts_by_id(self._documents or (), batch, self._text_key):
            wanted = self._convert(self._records_of(texts), texts)
            written, stored = self._write(wanted)
            _count(tally, progress, len(texts), written, stored - written)

    def _records_of(self, ids: Iterable[str]) -> list[Record]:
        """Return the records of documents with all windows; absent documents are skipped."""
        firsts = self._source.get(list(ids), parts=self._parts)
        return list(chain.from_iterable(read_windows(firsts, self._source, self._parts)))

    def _write(self, wanted: Sequence[Wanted]) -> tuple[int, int]:
        """Write what the target lacks; return the numbers of written records, and of all records it then contains."""
        answer = self._target.get([each.record.id for each in wanted], parts=self._parts)
        stored = {record.id: record for record in answer}
        outdated = [each for each in wanted if not self._is_stored(each, stored.get(each.record.id))]
        if outdated:
            self._check_unmoved()
            _raise_rejected(self._target.upsert(self._encoded(outdated, self._encoders())))
        known = [each for each in wanted if each.are_windows_known]
        others = [window_count(stored[each.record.id].payload) for each in wanted if not each.are_windows_known]
        return len(outdated), len(known) + sum(others)

    def _is_stored(self, wanted: Wanted, stored: Record | None) -> bool:
        """Return whether the target has a record with the same payload and the same copied vectors."""
        if stored is None:
            return False
        present = content_hash(self._comparable(stored if wanted.are_windows_known else without_marks(stored)))
        return present in {content_hash(self._comparable(wanted.record)), self._hash_as_stored(wanted.record)}

    def _comparable(self, record: Record) -> Record:
        """Return the record with its copied vectors only."""
        vectors = {name: vector for name, vector in record.vectors.items() if name in self._copied}
        return Record(record.id, vectors, record.payload)

    def _hash_as_stored(self, record: Record) -> bytes:
        """Return the digest of a record as the target stores it, or b"" for a record that the target will refuse."""
        schema = self._target.schema
        schema = replace(schema, fields={name: schema.fields[name] for name in self._copied})
        try:
            return content_hash(check_record(self._comparable(record), schema, optional_vectors=True))
        except (ValueError, TypeError):
            return b""

    def _encoded(self, wanted: Sequence[Wanted], encoders: Sequence[FieldEncoder]) -> list[Record]:
        """Return the records with the vectors of the new collection."""
        texts = _texts_of(wanted, self._text_key) if encoders and wanted else []
        computed = {encoder.field: encoder.documents(texts) if texts else [] for encoder in encoders}
        return [
            Record(
                each.record.id,
                {name: each.record.vectors[name] for name in self._copied if name in each.record.vectors}
                | {name: vectors[at] for name, vectors in computed.items()},
                each.record.payload,
            )
            for at, each in enumerate(wanted)
        ]

    def _conversion(self, spans: Spans | None, *, is_back: bool) -> Convert:
        if is_back:
            stores = (self._source, self._target)
            return partial(same_documents, text_key=self._text_key, stores=stores, parts=self._parts)
        if spans is not None:
            return partial(split_anew, text_key=self._text_key, spans=spans, store=self._source)
        return partial(same_windows, text_key=self._text_key)

    def _sample(self, count: int) -> tuple[list[Record], dict[str, str]]:
        """Return some records, with their texts by id if these are in the documents."""
        for texts in islice(_texts_by_id(self._documents or (), count, self._text_key), 1):
            return self._records_of(texts), texts
        return list(islice(self._source.scan(batch=count), count)), {}

    def _encoders(self) -> list[FieldEncoder]:
        fields = [name for name in _vector_fields(self._target) if name not in self._copied]
        return [
            FieldEncoder(name, kind_of(self._target.schema.fields[name]), model.load())
            for name, model in self._models.items()
            if name in fields
        ]

    def _delete_extra(self, batch: int) -> bool:
        """Delete the records of the target that the last pass did not want; return whether there were any."""
        if self._target.count() == self._expected:
            return False
        extra: list[str] = []
        for records in batches(self._target.scan(parts=Parts.PAYLOAD, batch=batch), batch):
            extra += self._extra(records)
        for at in range(0, len(extra), batch):
            self._check_unmoved()
            self._target.delete(extra[at : at + batch])
        self._target.refresh()
        return bool(extra)

    def _extra(self, records: Sequence[Record]) -> list[str]:
        """Return the ids of records whose documents the source lacks, and of windows beyond the last of a document."""
        parents = {record.id: parent_of(record.id, record.payload) for record in records}
        ids = list(dict.fromkeys(parents.values()))
        present = {each.id for each in self._source.get(ids, parts=Parts.NONE)}
        counts = {each.id: window_count(each.payload) for each in self._target.get(ids, parts=Parts.PAYLOAD)}
        return [
            each.id
            for each in records
            if (parent := parents[each.id]) not in present or window_number(each.payload) >= counts.get(parent, 0)
        ]

    def _check_complete(self) -> None:
        """Raise Refused unless both collections have the records that the last pass counted."""
        count = self._target.count()
        if (self._source.count(), count) != (self._scanned, self._expected):
            raise _refused(
                f"the new collection has {count:,} records, and {self._expected:,} were to be there, because other "
                "programs write to the present one: stop them and run the migration again; nothing was switched"
            )

    def _sampled_queries(self) -> dict[str, str]:
        wanted = self._convert(*self._sample(SAMPLE))
        words = [each.text.split()[:QUERY_WORDS] for each in wanted if each.text is not None and each.text.strip()]
        return {str(number): " ".join(each) for number, each in enumerate(words, 1)}


def drop_old(index: Index) -> str:
    """Drop the collection before the last migration, and return its name; the migration can then not be undone.

    The first collection is emptied instead, because its metadata stores for which collection its name stands. Indexes
    that were opened before the migration must be opened again first. Raises ValueError if there is no such collection.
    """
    migration = _migration_of(index)
    if migration.previous is None:
        raise ValueError(f"{migration.root!r} has no previous collection to drop")
    with _locked(index):
        with suppress(NotFound), closing(_opened(index, migration.previous)) as store:
            if migration.previous == migration.root:
                _delete_all(store)
            else:
                store.drop()
        _point(index, replace(migration, previous=None))
    return migration.previous


def _locked(index: Index) -> AbstractContextManager[None]:
    """Return the lock of the migrations of a collection, which holds for the processes of one user on one machine.

    A store that exists in this process only has its own.
    """
    is_shared = index.store.capabilities.persistent and index.client is None
    parts = ("migration", "" if is_shared else str(os.getpid()), absolute_address(index.address), index.collection)
    message = f"{index.collection!r} is being migrated by another process"
    return locked(Path(*(quote(each, safe="") for each in parts)), message)


def _migration_of(index: Index) -> Migration:
    """Return for which collection the name of an index stands; raise an error unless it is that of the index."""
    if not index.address:
        raise ValueError("expected an index that was opened by Index.open or Index.create")
    schema = stored_schema(index.address, index.collection, client=index.client)
    migration = schema.migration or Migration(schema.collection, schema.collection)
    if migration.root != schema.collection and migration.current == schema.collection:
        raise _refused(f"{schema.collection!r} is a collection of {migration.root!r}: migrate that")
    if migration.root != schema.collection:  # a copy of the schema of another collection
        migration = Migration(schema.collection, schema.collection)
    if migration.current != index.schema.collection:
        message = f"{migration.root!r} was migrated to {migration.current!r} in the meantime: open it again"
        raise SchemaMismatch(message, store="index", operation="migrate")
    return migration


def _point(index: Index, migration: Migration) -> None:
    """Write the migration to the metadata of the first collection, which is one atomic change."""
    with closing(_opened(index, migration.root)) as store:
        store.alter(replace(store.schema, migration=migration))


def _opened(index: Index, collection: str) -> Store:
    return open_store(index.address, collection, client=index.client, follow=False)


def _opened_new(index: Index, schema: Schema) -> Store:
    """Return the store of the new collection, which exists only if an interrupted migration has created it."""
    with suppress(NotFound):
        stored = stored_schema(index.address, schema.collection, client=index.client)
        if stored.migration != schema.migration:
            raise _refused(f"the collection {schema.collection!r} is in the way: copy it to another name and drop it")
        if schema_difference(stored, schema):
            message = (
                f"{schema.collection!r} is of an unfinished migration to other models or settings: continue that one, "
                f"or drop it (st-connectors drop --in {index.address} --collection {schema.collection})"
            )
            raise SchemaMismatch(message, store="index", operation="migrate")
    return open_store(index.address, schema.collection, schema, client=index.client)


def _next_name(migration: Migration) -> str:
    number = migration.current.removeprefix(f"{migration.root}~")
    return f"{migration.root}~{int(number) + 1 if number.isdecimal() and number != migration.current else 2}"


def _with_models(
    schema: Schema, models: Mapping[str, LazyModel], passed: Iterable[str], metric: Metric | str | None
) -> Schema:
    """Return the schema with the references and dimensions of passed models, and another metric of dense vectors."""
    if metric is not None and metric not in set(Metric):
        raise ValueError(f"unknown metric {metric!r}; expected one of {', '.join(Metric)}")
    refs: dict[str, ModelRef] = {name: models[name].ref() for name in passed}
    fields: dict[str, Field] = dict(schema.fields)
    for name, ref in refs.items():
        if FieldKind(ref.kind.value) is FieldKind.SPARSE:
            fields.setdefault(name, SparseField())
            continue
        before = fields.get(name, DenseField(ref.dimension))
        if isinstance(before, DenseField):
            fields[name] = replace(before, dimension=ref.dimension, metric=metric_of(models[name]))
    if metric is not None:
        fields = {
            name: replace(field, metric=Metric(metric)) if isinstance(field, DenseField) else field
            for name, field in fields.items()
        }
    return replace(schema, fields=fields, models={**schema.models, **refs})


def _is_copied(before: Schema, after: Schema, name: str) -> bool:
    """Return whether the vectors of a field stay as they are, whatever their quantization."""
    one, other = before.fields.get(name), after.fields[name]
    if isinstance(one, DenseField) and isinstance(other, DenseField):
        one = replace(one, quantization=other.quantization)
    return one == other and not isinstance(other, TextField) and before.models.get(name) == after.models.get(name)


def _vector_fields(store: Store) -> list[str]:
    return [name for name, field in store.schema.fields.items() if not isinstance(field, TextField)]


def _model(
    schema: Schema, name: str, index: Index, passed: Mapping[str, LazyModel], options: ModelOptions
) -> LazyModel:
    """Return the model of a field of another collection: that of the index if it is the same one."""
    if name in passed:
        return passed[name]
    if name in index.models and index.schema.models.get(name) == schema.models[name]:
        return index.models[name]
    return stored_model(schema.models[name], name, schema.collection, options=options, trust=False)


def _check_repeatable(documents: Iterable[object]) -> None:
    check_documents(documents)
    if iter(documents) is documents:
        raise TypeError("documents are iterated several times: pass a list, or an object whose __iter__ begins anew")


def _spans(split: Split | bool | None, models: Mapping[str, LazyModel]) -> Spans | None:
    """Return how texts are split into other windows; None if windows stay."""
    if split is None:
        return None
    if split is False:
        return _one_window
    return spans_of(list(models.values()), Split() if split is True else split)


def _one_window(text: str) -> list[tuple[int, int]]:
    return [(0, len(text))]


def _texts_by_id(documents: Iterable[object], batch: int, text_key: str) -> Iterator[dict[str, str]]:
    """Yield the texts of documents by id, batch by batch; values that are no documents are skipped."""
    iterator = iter(documents)
    while values := list(islice(iterator, batch)):
        texts = {}
        for value in values:
            with suppress(DocumentError):
                document = as_document(value, text_key)
                texts[document.id] = document.text
        yield texts


def _texts_of(wanted: Sequence[Wanted], text_key: str) -> list[str]:
    """Return the texts of records; raise Refused for the first record without one."""
    for each in wanted:
        if each.text is None:
            raise _refused(
                f"record {each.record.id!r} has no complete text under {text_key!r} in its payload, from which to "
                "compute new vectors: pass the source that has it (st-connectors migrate SOURCE, or documents=)"
            )
    return [each.text for each in wanted if each.text is not None]


def _count(tally: Tally, progress: Progress | None, read: int, written: int, skipped: int) -> None:
    tally.add(IngestReport(read=read, confirmed=written, records=written, skipped=skipped))
    if progress is not None:
        progress(tally.report())


def _raise_rejected(rejected: Sequence[Rejected]) -> None:
    for item in rejected:
        raise item.error


def _refused(message: str) -> Refused:
    return Refused(message, store="index", operation="migrate")


def _delete_all(store: Store) -> None:
    while ids := [record.id for record in islice(store.scan(parts=Parts.NONE), 1000)]:
        store.delete(ids)
        store.refresh()


def _count_tokens(encoders: Sequence[FieldEncoder], texts: Sequence[str]) -> int | None:
    """Return the tokens of the texts for all encoders with a tokenizer, None if none has one."""
    tokenizers = [tokenizer for encoder in encoders if (tokenizer := tokenizer_of(encoder.model)) is not None]
    counts = [len(encoding.ids) for each in tokenizers for encoding in each.encode_batch(list(texts))]
    return sum(counts) if tokenizers else None


def _size_of(record: Record) -> int:
    """Return the bytes of a record's vectors, 4 for a number and 8 for a weight with its index, and of its payload."""
    vectors = sum(
        8 * each.indices.size if isinstance(each, SparseVector) else 4 * each.size for each in record.vectors.values()
    )
    return vectors + len(json.dumps(record.payload, ensure_ascii=False).encode())
