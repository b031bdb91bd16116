"""A collection with its models, which stores documents as text and returns the hits of text queries."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from numbers import Integral
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from st_connectors.deleting import delete_selection, select_by_filter, select_by_ids
from st_connectors.errors import SchemaMismatch, StoreError
from st_connectors.ingest import (
    DeadLetterFile,
    DeleteMissing,
    IngestFailed,
    IngestInterrupted,
    IngestOptions,
    IngestReport,
    MaxRefused,
    Patience,
    Progress,
    Refusal,
    Resume,
    Spans,
    SyncPlan,
    Waiting,
    ingest,
)
from st_connectors.ingest.changes import DocumentComparison
from st_connectors.ingest.dead_letters import Target
from st_connectors.ingest.ledger import open_ledger
from st_connectors.ingest.limits import parse_max_refused
from st_connectors.ingest.missing import delete_missing as delete_all_missing
from st_connectors.ingest.pipeline import check_documents
from st_connectors.ingest.planning import plan_sync
from st_connectors.ingest.state import Identity
from st_connectors.models import LazyModel, ModelOptions, identity_of, is_recorded, stored_model
from st_connectors.registry import absolute_address, adopt_store, check_current, open_store, stored_schema
from st_connectors.schema import FieldKind, FilterKind, Fusion, Quantization, Schema, successor_of
from st_connectors.schemas import (
    adopted_models,
    adopted_text,
    altered_schema,
    build_schema,
    lazy_models,
    lazy_reranker,
    parse_kinds,
    relocated_models,
    stored_models,
    stored_reranker,
    text_key_of,
)
from st_connectors.search import Mode, SearchOptions, SearchResult, search
from st_connectors.split import Split, cut_test, spans_of
from st_connectors.store import Default, Effort, Parts, Record, Store
from st_connectors.threads import finish, threaded
from st_connectors.vectorise import FieldEncoder, encoding_on
from st_core.protocols import Reranker, TextEncoder

if TYPE_CHECKING:
    from st_connectors.filters import Filter

__all__ = ["Index", "Split"]


class FurtherSyncArguments(TypedDict, total=False):
    """The arguments of :meth:`Index.sync` that concern refused documents and parallel work, as for ``ingest``."""

    dead_letters: DeadLetterFile | str | PathLike[str] | None
    max_refused: MaxRefused | int | str | None
    writers: int | None
    device: Sequence[str] | None
    patience: Patience | None
    on_wait: Callable[[Waiting], None] | None
    on_interrupt: Callable[[], None] | None


class FurtherIngestArguments(FurtherSyncArguments, total=False):
    """The arguments of :meth:`Index.ingest` that concern interruptions, refused documents and parallel work."""

    resume: Resume | str | PathLike[str] | None


class Index:
    """An open collection with its models. Safe for use from several threads.

    ``create`` creates a collection, ``open`` opens an existing one, and ``adopt`` opens a collection that someone else
    created.
    """

    def __init__(
        self,
        store: Store,
        models: Mapping[str, LazyModel],
        *,
        reranker: LazyModel | None = None,
        text_key: str = "text",
        fields: Sequence[str] | None = None,
        address: str = "",
        collection: str | None = None,
        client: object | None = None,
    ) -> None:
        """Combine a store and the models of its fields; usually ``create``, ``open`` or ``adopt`` is called instead.

        ``models`` contains the model of each field, and ``text_key`` is the payload key of texts. ``fields`` are the
        fields to search, if these are not all fields of the collection. ``address`` is that of the store, by which a
        state and dead letters name it. ``collection`` is the name by which the collection was opened, if it can be
        migrated, and ``client`` the client object with which it was opened.
        """
        self._address = address
        self._collection = collection
        self._client = client
        self._store = store
        self._models = dict(models)
        self._reranker = reranker
        self._text_key = text_key
        self._fields = None if fields is None else tuple(fields)

    @classmethod
    def create(
        cls,
        url: str,
        *,
        collection: str,
        dense: str | PathLike[str] | TextEncoder | None = None,
        sparse: str | PathLike[str] | TextEncoder | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        text: bool = False,
        filterable: Mapping[str, FilterKind | str] | None = None,
        fusion: Fusion | None = None,
        backend: str = "torch",
        dtype: str | None = None,
        client: object | None = None,
    ) -> Index:
        """Create a collection, or open it if it exists with the same schema; raise SchemaMismatch for another schema.

        Models are names (``builtin:dense``, a folder, a Hub name) or objects. ``text`` adds a leg with the BM25 of the
        store. ``filterable`` maps payload keys to kinds, for use in ``where``. ``fusion`` is the default fusion of
        legs.

        ``backend`` and ``dtype`` are options of the model classes and apply to models passed by name. Model objects are
        used unchanged, and static models always run on numpy. The collection records the backend and the precision of
        its models, and ``open`` uses them.
        """
        options = ModelOptions(backend, dtype)
        models = lazy_models(dense, sparse, options)
        if not models and not text:
            raise ValueError("nothing to search by: pass dense=, sparse= or text=True")
        lazy = lazy_reranker(reranker, options)
        schema = build_schema(collection, models, lazy, text=text, filterable=filterable or {}, fusion=fusion)
        store = _created(url, schema, client)
        return cls(
            store,
            models,
            reranker=lazy,
            text_key=text_key_of(schema),
            address=url,
            collection=collection,
            client=client,
        )

    @classmethod
    def open(
        cls,
        url: str,
        *,
        collection: str,
        dense: str | PathLike[str] | TextEncoder | None = None,
        sparse: str | PathLike[str] | TextEncoder | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        trust_model: bool = False,
        backend: str | None = None,
        dtype: str | None = None,
        client: object | None = None,
    ) -> Index:
        """Open an existing collection; its models are loaded by their stored names on first use.

        A model passed here replaces the stored model and must be the same; otherwise SchemaMismatch is raised with the
        differences. ``trust_model`` allows another fingerprint, but never another dimension.

        ``backend`` and ``dtype`` apply to models that are loaded by name. If they are None, the models run on the
        backend and in the precision that the collection records; for a collection that records no backend, on torch.
        A backend or dtype other than the recorded one is used with a warning. On another backend without a ``dtype``,
        openvino and onnx use the recorded precision if they have it; torch and auto use their default. The precision
        is compared with that of the collection only if ``dtype`` is set. Rerankers are not compared, because a
        collection contains none of their results; a reranker passed by name runs in the default precision.
        """
        options = ModelOptions(backend, dtype)
        store = open_store(url, collection, client=client)
        try:
            schema = store.schema
            passed = lazy_models(dense, sparse, options, schema.models)
            models = stored_models(schema, passed, options, trust=trust_model)
            lazy = stored_reranker(schema, reranker, options)
            return cls(
                store,
                models,
                reranker=lazy,
                text_key=text_key_of(schema),
                address=url,
                collection=collection,
                client=client,
            )
        except BaseException:
            store.close()
            raise

    @classmethod
    def adopt(
        cls,
        url: str,
        *,
        collection: str,
        dense: tuple[str, str | PathLike[str] | TextEncoder] | None = None,
        sparse: tuple[str, str | PathLike[str] | TextEncoder] | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        text_key: str = "text",
        filterable: Mapping[str, FilterKind | str] | None = None,
        backend: str = "torch",
        dtype: str | None = None,
        client: object | None = None,
        text: str | None = None,
    ) -> Index:
        """Open a collection that someone else created, without changing it: ``dense=("their_vector", model)``.

        No metadata is written, so that the models must be passed each time. ``text_key`` is the payload key of the
        texts; ``text`` sets it too, and adds a leg if the store has a full-text index of it. Raises SchemaMismatch if a
        vector does not exist or has another dimension than its model. ``backend`` and ``dtype`` are the same as for
        ``create``; the precision of existing vectors is not known.
        """
        options = ModelOptions(backend, dtype)
        store = adopt_store(url, collection, filterable=parse_kinds(filterable or {}), client=client)
        try:
            models = adopted_models(store.schema, dense, sparse, options)
            leg, key = (None, text_key) if text is None else adopted_text(store.schema, text)
            fields = _adopted_fields(models, leg)
            lazy = lazy_reranker(reranker, options)
            return cls(store, models, reranker=lazy, text_key=key, fields=fields, address=url)
        except BaseException:
            store.close()
            raise

    @property
    def store(self) -> Store:
        """The store of the collection."""
        return self._store

    @property
    def schema(self) -> Schema:
        """The collection's schema, with the references of its models."""
        return self._store.schema

    @property
    def text_key(self) -> str:
        """The payload key of texts."""
        return self._text_key

    @property
    def address(self) -> str:
        """The address of the store; "" if the index was constructed without it."""
        return self._address

    @property
    def collection(self) -> str:
        """The name by which the collection was opened; its own name, in the schema, differs after a migration."""
        return self._collection or self.schema.collection

    @property
    def client(self) -> object | None:
        """The client object with which the collection was opened."""
        return self._client

    @property
    def models(self) -> Mapping[str, LazyModel]:
        """The models of the vector fields."""
        return dict(self._models)

    def ingest(
        self,
        documents: Iterable[object],
        *,
        split: Split | None = None,
        batch: int = 512,
        progress: Progress | None = None,
        on_refused: Callable[[Refusal], None] | None = None,
        resume: Resume | str | PathLike[str] | None = None,
        dead_letters: DeadLetterFile | str | PathLike[str] | None = None,
        max_refused: MaxRefused | int | str | None = None,
        writers: int | None = None,
        device: Sequence[str] | None = None,
        patience: Patience | None = None,
        on_wait: Callable[[Waiting], None] | None = None,
        on_interrupt: Callable[[], None] | None = None,
    ) -> IngestReport:
        """Encode and store documents from any iterable; a document replaces a stored document with the same id.

        A document is a mapping with ``id`` and ``text``, or a ``Document``. ``split`` splits long texts into windows;
        otherwise models truncate them, and the report counts the truncated documents. ``on_refused`` receives every
        refusal as soon as its batch is written, in a writing thread; the report contains the first 1,000.

        With ``resume``, a path or a ``Resume`` with further options, the ingest continues where an interrupted ingest
        with the same state stopped. Of an iterable without a position, the first values are read and dropped, so that
        it must yield the same values again. ``dead_letters`` is a JSONL file for refused documents, which the command
        ``replay`` ingests again; a ``DeadLetterFile`` also removes the letters of earlier ingests of the same source.
        ``max_refused`` stops the ingest after that number of refused documents, or that share of them: 100 or "1%".

        ``writers`` is the largest number of simultaneous requests to the store; None means what the store gains by.
        ``device`` lists devices, such as ``["cuda:0", "cuda:1"]`` or ``["cpu", "cpu"]``, on which as many processes
        encode. ``patience`` states how long to wait for a store that is down, and ``on_wait`` is called before each
        wait. ``on_interrupt`` is called on Ctrl-C, while encoded batches are still being written.

        Raises IngestFailed and IngestInterrupted, which contain the report up to that point, StateError,
        DeadLetterError and LockError for files that cannot be used, and FileInUseError if the same ingest is running
        already.
        """
        return self._ingest(
            documents,
            split,
            batch,
            progress,
            on_refused,
            resume=resume,
            dead_letters=dead_letters,
            max_refused=max_refused,
            writers=writers,
            device=device,
            patience=patience,
            on_wait=on_wait,
            on_interrupt=on_interrupt,
        )

    def _ingest(
        self,
        documents: Iterable[object],
        split: Split | None,
        batch: int,
        progress: Progress | None,
        on_refused: Callable[[Refusal], None] | None,
        *,
        should_stop: Callable[[], bool] | None = None,
        compare: DocumentComparison | None = None,
        **further: Unpack[FurtherIngestArguments],
    ) -> IngestReport:
        """Ingest with the arguments of ``ingest``, until ``should_stop`` returns True before a document.

        ``compare`` leaves out what the collection contains already.
        """
        check_documents(documents)
        self._check_current()
        writers, max_refused = further.get("writers"), further.get("max_refused")
        options = IngestOptions(
            batch=batch,
            spans=self._spans(split),
            text_key=self._text_key,
            on_refused=on_refused,
            writers=self._store.capabilities.writers if writers is None else writers,
            patience=further.get("patience") or Patience(),
            stop_after=None if max_refused is None else parse_max_refused(max_refused),
            on_wait=further.get("on_wait"),
            on_interrupt=further.get("on_interrupt"),
            should_stop=should_stop,
            compare=compare,
        )
        resume, letters = further.get("resume"), further.get("dead_letters")
        resuming = Resume(Path(resume)) if isinstance(resume, str | PathLike) else resume
        with ExitStack() as stack:
            ledger = stack.enter_context(
                open_ledger(
                    self._store,
                    self.target(split),
                    max_refused=options.max_refused,
                    resume=resuming,
                    identity=None if resuming is None else self._identity(resuming, split),
                    dead_letters=DeadLetterFile(Path(letters)) if isinstance(letters, str | PathLike) else letters,
                )
            )
            devices = further.get("device") or ()
            encoders = [
                stack.enter_context(encoding_on(encoder, devices))
                for encoder in self._encoders(list(self._models), counting=True)
            ]
            report = ingest(self._store, documents, encoders, options=options, progress=progress, ledger=ledger)
        try:
            self._check_current()
        except StoreError as error:
            raise IngestFailed(report, error) from error
        return report

    def _check_current(self) -> None:
        """Raise an error if the collection was migrated, or is about to be, so that a write would be lost."""
        if self._address and self._collection is not None:
            check_current(self._store)

    def sync(
        self,
        documents: Iterable[object],
        *,
        delete_missing: bool | DeleteMissing = False,
        split: Split | None = None,
        batch: int = 512,
        progress: Progress | None = None,
        on_refused: Callable[[Refusal], None] | None = None,
        **options: Unpack[FurtherSyncArguments],
    ) -> IngestReport:
        """Make the collection contain the documents as they are now; only new and changed texts are encoded.

        Each record contains hashes of its document under the payload key ``_sync``, by which the next sync recognizes
        unchanged documents; they are neither encoded nor written. If only the payload has changed, the document is
        written with its stored vectors. Records without hashes, as ``ingest`` writes them, are compared by their
        payloads. Another model or other windows count as a changed text. Of several documents with the same id, the
        last one is stored; they are encoded in each sync.

        ``delete_missing`` deletes the documents that are not in the source, after all others are stored: up to 20 % of
        the records that the collection had before, unless a ``DeleteMissing`` sets another limit. An interrupted sync
        needs no state: the next one finds unchanged what this one has stored. Memory is 8 bytes per id. The other
        arguments are those of ``ingest``.

        Raises what ``ingest`` raises. The cause of an IngestFailed is a DeletionRefusedError if documents were to be
        deleted and the source is empty or was not read completely, or too many are missing; all documents are stored.
        """
        try:
            comparison, total = self._comparison(), self._store.count()
        except StoreError as error:
            raise IngestFailed(IngestReport(), error) from error
        report = self._ingest(documents, split, batch, progress, on_refused, compare=comparison, **options)
        if not delete_missing:
            return report
        deleting = DeleteMissing() if delete_missing is True else delete_missing
        try:
            report = replace(report, deleted=delete_all_missing(self._store, comparison, deleting, report.read, total))
            self._check_current()
        except KeyboardInterrupt as error:
            raise IngestInterrupted(report) from error
        except Exception as error:
            raise IngestFailed(report, error) from error
        return report

    def plan_sync(self, documents: Iterable[object], *, split: Split | None = None, batch: int = 512) -> SyncPlan:
        """Return what ``sync`` with the same arguments would change, and about how long it takes; change nothing."""
        check_documents(documents)
        options = IngestOptions(batch=batch, spans=self._spans(split), text_key=self._text_key)
        return plan_sync(self._store, documents, self._encoders(list(self._models)), self._comparison(), options)

    def _comparison(self) -> DocumentComparison:
        """Return the comparison of documents with this collection, by the models as they are now."""
        refs = {name: model.ref() for name, model in self._models.items()}
        self._store.refresh()  # what an interrupted sync has written counts as stored
        return DocumentComparison(
            self._store,
            self._text_key,
            json.dumps({name: identity_of(ref) for name, ref in refs.items()}, sort_keys=True),
            are_models_recorded=all(is_recorded(ref, self.schema.models.get(name)) for name, ref in refs.items()),
        )

    def _spans(self, split: Split | None) -> Spans | None:
        return None if split is None else spans_of(list(self._models.values()), split)

    def target(self, split: Split | None = None) -> Target:
        """Return where documents are stored, as dead letters record it."""
        address = self._address and absolute_address(self._address)
        scheme = address.partition(":")[0]
        return Target(address, self.collection, scheme, None if split is None else asdict(split))

    def _identity(self, resume: Resume, split: Split | None) -> Identity:
        """Return what an interrupted ingest must have in common with the one that continues it."""
        return Identity(
            source=resume.description,
            target={"address": self.target().address, "collection": self.collection},
            models={name: dict(model.ref().fingerprint) for name, model in self._models.items()},
            options={"text_key": self._text_key, "split": None if split is None else asdict(split)},
        )

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        offset: int = 0,
        where: Filter | str | None = None,
        mode: Mode | str | None = None,
        fusion: Fusion | None = None,
        depth: int = 100,
        rerank: Reranker | bool = False,
        explain: bool = False,
        fold: bool = False,
        effort: Effort | None = None,
        min_score: float | None = None,
        highlight: bool = False,
        shorten: bool = True,
    ) -> SearchResult:
        """Return the best hits for a query.

        ``mode`` is "dense", "sparse", "text" or "hybrid"; None means hybrid if the collection has several legs.
        ``where`` is a Filter or a text such as ``year >= 2020``. If ``rerank`` is True, ``depth`` candidates are
        reordered by the reranker of the index; if it is an object with ``predict``, by this object. ``explain`` adds
        the terms that matched, and a description of each leg to the result. ``fold`` returns a split document only
        once. ``min_score`` omits hits with a lower ``hit.score``, whose scale depends on the leg, the fusion or the
        reranker. ``highlight`` adds the positions of the words in the text that matched in sparse and text legs.

        A query with more terms than the store allows keeps the heaviest terms of a sparse leg and the first words of a
        text leg, and ``notes`` of the result states what was left out; with ``shorten=False`` it raises Unsupported.
        """
        [result] = self.search_many(
            [query],
            limit=limit,
            offset=offset,
            where=where,
            mode=mode,
            fusion=fusion,
            depth=depth,
            rerank=rerank,
            explain=explain,
            fold=fold,
            effort=effort,
            min_score=min_score,
            highlight=highlight,
            shorten=shorten,
        )
        return result

    def search_many(
        self,
        queries: Iterable[str],
        *,
        limit: int = 10,
        offset: int = 0,
        where: Filter | str | None = None,
        mode: Mode | str | None = None,
        fusion: Fusion | None = None,
        depth: int = 100,
        rerank: Reranker | bool = False,
        explain: bool = False,
        fold: bool = False,
        effort: Effort | None = None,
        min_score: float | None = None,
        highlight: bool = False,
        shorten: bool = True,
    ) -> list[SearchResult]:
        """Return the results of several queries, in order.

        The queries are encoded together, and searched in one round trip if the store supports it. The options are the
        same as for ``search``.
        """
        if isinstance(queries, str):
            raise TypeError("search_many expects a list of queries; search expects one")
        queries = list(queries)
        options = SearchOptions(
            mode=_parse_mode(mode),
            limit=limit,
            offset=offset,
            where=_parse_filter(where),
            fusion=fusion,
            depth=depth,
            effort=effort or Default(),
            shorten=shorten,
            explain=explain,
            fold=fold,
            text_key=self._text_key,
            fields=self._fields,
            min_score=min_score,
            highlight=highlight,
        )
        return search(
            self._store,
            self._encoders(self._encoded_fields(options.mode)),
            queries,
            options,
            self._choose_reranker(rerank),
        )

    def get(self, ids: Sequence[str | int], *, parts: Parts = Parts.PAYLOAD) -> list[Record]:
        """Return the records with these ids in order; absent ids are skipped.

        For a split document, its first window is returned.
        """
        return self._store.get(_check_ids(ids), parts=parts)

    def count(self, where: Filter | str | None = None) -> int:
        """Return the number of records; each window of a split document is a record."""
        return self._store.count(_parse_filter(where))

    def delete(self, ids: Sequence[str | int] | None = None, *, where: Filter | str | None = None) -> int:
        """Remove documents with all their windows, by id or by filter, and return the number of removed documents.

        Absent ids are ignored. A filter removes every document of which a record passes it; ``where="true"`` removes
        all. Raises ValueError unless exactly one of ``ids`` and ``where`` is passed.
        """
        record_filter = _parse_filter(where)
        if (ids is None) == (record_filter is None):
            raise ValueError("delete expects either ids or where=, and not both")
        self._check_current()
        if record_filter is None:
            selection = select_by_ids(self._store, _check_ids(ids or ()))
        else:
            selection = select_by_filter(self._store, record_filter)
        delete_selection(self._store, selection)
        self._check_current()
        return len(selection.documents)

    def alter(
        self,
        *,
        filterable: Mapping[str, FilterKind | str] | None = None,
        reranker: str | Reranker | None = None,
        fusion: Fusion | None = None,
        quantization: Quantization | str | None = None,
        backend: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Change what the collection records, without encoding its texts again; None leaves a setting as it is.

        ``filterable`` adds filterable fields, which then apply to stored records too. ``reranker`` and ``fusion``
        replace the recorded ones; ``backend`` and ``dtype`` apply to a reranker passed by name. ``quantization`` is
        "none", "int8" or "binary", for all dense vectors. No other process may write to the collection meanwhile.

        Raises ``Unsupported`` for a change that the store cannot make in place, and ``Refused`` if a stored record has
        a value of another kind in a new filterable field; in both cases nothing has changed.
        """
        lazy = lazy_reranker(reranker, ModelOptions(backend, dtype))
        self._store.alter(
            altered_schema(self.schema, filterable=filterable, reranker=lazy, fusion=fusion, quantization=quantization)
        )
        self._reranker = self._reranker if lazy is None else lazy

    def relocate(
        self,
        *,
        dense: str | None = None,
        sparse: str | None = None,
        reranker: str | None = None,
        backend: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Record the new places of models that have moved: names of models or folders.

        The models are loaded from there. Raises ValueError if no place is passed, and SchemaMismatch unless their
        fingerprints are the recorded ones.
        """
        options = ModelOptions(backend, dtype)
        moved = relocated_models(self.schema, {"dense": dense, "sparse": sparse, "reranker": reranker}, options)
        self._store.alter(replace(self.schema, models={**self.schema.models, **moved}))
        for name, ref in moved.items():
            if name in self._models:
                self._models[name] = stored_model(ref, name, self.schema.collection, options=options, trust=False)
            else:
                self._reranker = stored_reranker(self.schema, None, options)

    def drop(self) -> None:
        """Remove the collection and all its records."""
        self._store.drop()

    def close(self) -> None:
        """Close the store, and the connections of models on a server; a second call does nothing."""
        self._store.close()
        for model in (*self._models.values(), *([self._reranker] if self._reranker is not None else [])):
            model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import asyncio

        await finish(asyncio.to_thread(self.close))

    async def aingest(
        self,
        documents: Iterable[object],
        *,
        split: Split | None = None,
        batch: int = 512,
        progress: Progress | None = None,
        on_refused: Callable[[Refusal], None] | None = None,
        **options: Unpack[FurtherIngestArguments],
    ) -> IngestReport:
        """``ingest`` for async callers, in a worker thread, which also reads ``documents`` and calls the callbacks.

        ``options`` are the further arguments of ``ingest``. If cancelled, it reads no further documents, stores those
        that it has read, and then raises CancelledError.
        """
        import asyncio

        check_documents(documents)
        stopped = threading.Event()
        call = asyncio.to_thread(
            self._ingest, documents, split, batch, progress, on_refused, should_stop=stopped.is_set, **options
        )
        return await finish(call, stopped.set)

    asearch = threaded(search)
    asearch_many = threaded(search_many)
    aget = threaded(get)
    acount = threaded(count)
    adelete = threaded(delete, is_write=True)

    def _encoded_fields(self, mode: Mode | None) -> list[str]:
        """Return the fields for which a mode requires encoders, so that a text search loads no model."""
        schema = self._store.schema
        kinds = [FieldKind.DENSE, FieldKind.SPARSE] if mode in {None, Mode.HYBRID} else [FieldKind(str(mode))]
        fields = [name for kind in kinds if kind is not FieldKind.TEXT for name in schema.of_kind(kind)]
        return fields if self._fields is None else [name for name in fields if name in self._fields]

    def _encoders(self, fields: Sequence[str], *, counting: bool = False) -> list[FieldEncoder]:
        """Return the encoders of fields; ``counting`` adds the test for truncated texts, which copies the tokenizer."""
        return [
            FieldEncoder(name, FieldKind(model.kind.value), model.load(), cut_test(model) if counting else None)
            for name, model in self._models.items()
            if name in fields
        ]

    def _choose_reranker(self, rerank: Reranker | bool) -> Reranker | None:
        if rerank is False or rerank is None:
            return None
        if rerank is not True:
            if not hasattr(rerank, "predict"):
                raise TypeError(f"rerank must be True, False or a model with predict, not {rerank!r}")
            return rerank
        if self._reranker is None:
            raise ValueError("this index has no reranker: pass one to Index.open, or rerank=model")
        model: Reranker = self._reranker.load()
        return model


def _created(url: str, schema: Schema, client: object | None) -> Store:
    """Return the store of a collection that is created unless it exists, under its current name if it was migrated."""
    store = open_store(url, schema.collection, schema, client=client)
    try:
        store.create()
    except SchemaMismatch:
        store.close()
        successor = successor_of(stored_schema(url, schema.collection, client=client))
        if successor is None:
            raise
        return _created(url, replace(schema, collection=successor), client)
    except BaseException:
        store.close()
        raise
    return store


def _adopted_fields(models: Mapping[str, LazyModel], text: str | None) -> tuple[str, ...]:
    """Return the fields of an adopted collection to search: those with models, and the text field if there is one."""
    fields = (*models, *([] if text is None else [text]))
    if not fields:
        raise ValueError('nothing to search by: pass dense=("their_vector", model), sparse=(…) or text="their_text"')
    return fields


def _parse_mode(mode: Mode | str | None) -> Mode | None:
    try:
        return None if mode is None else Mode(mode)
    except ValueError as error:
        raise ValueError(f"unknown mode {mode!r}; expected one of {', '.join(Mode)}") from error


def _parse_filter(where: Filter | str | None) -> Filter | None:
    if not isinstance(where, str):
        return where
    from st_connectors.where import parse_where

    return parse_where(where)


def _check_ids(ids: Any) -> list[str]:
    """Return ids as strings; an integer stands for its decimal digits, as it does in ingested documents."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise TypeError(f"ids must be a list of ids; for one, [{ids!r}]")
    return [str(int(each)) if isinstance(each, Integral) and not isinstance(each, bool) else each for each in ids]
