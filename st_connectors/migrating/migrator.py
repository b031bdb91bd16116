"""Fill, compare and switch to the new collection of a migration."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from os import PathLike
from typing import TYPE_CHECKING, Self, cast

from st_connectors.chunks import parent_of, window_count, window_number
from st_connectors.comparing import SearchComparison, compare_indexes
from st_connectors.copying import batches, content_hash
from st_connectors.errors import SchemaMismatch, StoreError
from st_connectors.index import Index
from st_connectors.ingest import IngestFailed, IngestInterrupted, IngestReport, Progress, Spans
from st_connectors.ingest.locks import FileInUseError
from st_connectors.ingest.pipeline import check_documents
from st_connectors.ingest.report import Tally
from st_connectors.layers.records import check_record
from st_connectors.migrating.estimate import Estimate, count_tokens, size_of
from st_connectors.migrating.pointer import (
    lock_migration,
    migration_of,
    next_name,
    open_collection,
    open_new,
    point,
    refusal,
)
from st_connectors.migrating.records import (
    Convert,
    Wanted,
    read_windows,
    same_documents,
    same_windows,
    split_anew,
    texts_by_id,
    texts_of,
    without_marks,
)
from st_connectors.migrating.target import is_copied, model_of, vector_fields, with_models
from st_connectors.models import LazyModel, ModelOptions
from st_connectors.schema import (
    FilterKind,
    Fusion,
    Metric,
    Migration,
    Quantization,
    kind_of,
)
from st_connectors.schemas import altered_schema, lazy_models, text_key_of
from st_connectors.split import Split, spans_of
from st_connectors.store import Parts, Record, Rejected, Store
from st_connectors.vectorise import FieldEncoder
from st_core.protocols import TextEncoder

if TYPE_CHECKING:
    from st_connectors.plugin import SchemaStore

__all__ = ["AlreadyMigratedError", "Migrator"]

MAX_PASSES = 5
"""The number of times that records are compared while others write; the pass of the switch does the rest."""
SAMPLE = 64
"""The number of records from which an estimate is computed, and of texts that serve as queries."""
QUERY_WORDS = 12
"""The number of words of a text that serve as a query."""


class AlreadyMigratedError(ValueError):
    """The collection has the models and settings that a migration was to give it."""


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
        self._copied = tuple(name for name in names if is_copied(index.schema, target.schema, name))
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
        migration = migration_of(index)
        options = ModelOptions(backend, dtype)
        models = dict(index.models) | lazy_models(dense, sparse, options, index.schema.models)
        passed = {name for name, model in (("dense", dense), ("sparse", sparse)) if model is not None}
        altered = altered_schema(index.schema, filterable=filterable, fusion=fusion)
        schema = with_models(altered, models, passed, metric)
        if quantization is not None:
            schema = altered_schema(schema, quantization=quantization)
        if split is None and replace(schema, fusion=index.schema.fusion) == index.schema:
            if passed or metric is not None or quantization is not None or filterable:
                raise AlreadyMigratedError(f"{index.collection!r} has these models and settings already")
            raise ValueError("nothing to migrate: pass another model, metric, quantization, filterable field or split")
        name = next_name(migration)
        if migration.previous not in {None, name}:
            raise refusal(
                f"the collection before the last migration, {migration.previous!r}, is still there: drop it "
                "(st-connectors migrate --drop-old), or go back to it (--back)"
            )
        spans = _spans(split, models)
        schema = replace(schema, collection=name, migration=Migration(migration.root, name))
        return cls(index, migration, open_new(index, schema), models, spans=spans, documents=documents)

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
        migration = migration_of(index)
        is_undone = migration.previous == next_name(migration)
        if migration.is_switching and (migration.previous is None or is_undone):
            point(index, replace(migration, is_switching=False))
        if migration.previous is None:
            raise ValueError(f"{migration.root!r} has no previous collection to go back to")
        if is_undone:
            raise ValueError(
                f"the last migration of {migration.root!r} is undone already; run the same migration again to return "
                f"to {migration.previous!r}"
            )
        target = open_collection(index, migration.previous)
        options = ModelOptions(None, None)
        passed = lazy_models(dense, sparse, options, target.schema.models)
        try:
            models = {name: model_of(target.schema, name, index, passed, options) for name in vector_fields(target)}
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
        texts = texts_of(wanted, self._text_key)
        encoders = self._encoders()
        began = time.perf_counter()
        converted = self._encoded(wanted, encoders)
        seconds = time.perf_counter() - began
        share = total / len(records) if records else 0.0
        tokens = count_tokens(encoders, texts)
        return Estimate(
            records=total,
            tokens=None if tokens is None else round(tokens * share),
            tokens_per_second=None if tokens is None or not seconds else round(tokens / seconds, 1),
            records_per_second=round(len(records) / seconds, 1) if seconds else 0.0,
            seconds=round(seconds * share, 3),
            bytes=round(sum(map(size_of, converted)) * share),
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
            with lock_migration(self._index):
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
    ) -> SearchComparison:
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
        with lock_migration(self._index):
            self._check_unmoved()
            self._switch(batch, progress)

    def _switch(self, batch: int, progress: Progress | None) -> None:
        migration = self._migration
        point(self._index, replace(migration, is_switching=True))
        try:
            self._bring_up_to_date(Tally(0), batch, progress)
            self._check_complete()
        except BaseException:
            with suppress(StoreError):  # a further migration, or --back, clears the mark
                point(self._index, migration)
            raise
        point(self._index, Migration(migration.root, self._target.schema.collection, migration.current))

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
        for texts in texts_by_id(self._documents or (), batch, self._text_key):
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
        texts = texts_of(wanted, self._text_key) if encoders and wanted else []
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
        for texts in islice(texts_by_id(self._documents or (), count, self._text_key), 1):
            return self._records_of(texts), texts
        return list(islice(self._source.scan(batch=count), count)), {}

    def _encoders(self) -> list[FieldEncoder]:
        fields = [name for name in vector_fields(self._target) if name not in self._copied]
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
            raise refusal(
                f"the new collection has {count:,} records, and {self._expected:,} were to be there, because other "
                "programs write to the present one: stop them and run the migration again; nothing was switched"
            )

    def _sampled_queries(self) -> dict[str, str]:
        wanted = self._convert(*self._sample(SAMPLE))
        words = [each.text.split()[:QUERY_WORDS] for each in wanted if each.text is not None and each.text.strip()]
        return {str(number): " ".join(each) for number, each in enumerate(words, 1)}


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


def _count(tally: Tally, progress: Progress | None, read: int, written: int, skipped: int) -> None:
    tally.add(IngestReport(read=read, confirmed=written, records=written, skipped=skipped))
    if progress is not None:
        progress(tally.report())


def _raise_rejected(rejected: Sequence[Rejected]) -> None:
    for item in rejected:
        raise item.error
