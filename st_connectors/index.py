"""A store together with its encoders: documents and questions in words go in, hits come out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from st_connectors.chunks import window_count, window_id
from st_connectors.ingest import IngestOptions, IngestReport, Progress, ingest
from st_connectors.models import LazyModel, Running, Split, cut_test, spans_of
from st_connectors.registry import adopt_store, open_store
from st_connectors.schema import FieldKind, FilterKind, Fusion, Schema
from st_connectors.schemas import (
    adopted,
    given,
    kinds_of,
    remembered,
    reranker_given,
    reranker_of,
    schema_for,
    text_key_of,
)
from st_connectors.search import Mode, SearchOptions, SearchResult, search
from st_connectors.store import Default, Effort, Parts, Record, Store
from st_connectors.vectorise import FieldEncoder
from st_core.protocols import Reranker, TextEncoder

if TYPE_CHECKING:
    from st_connectors.filters import Filter

__all__ = ["Index", "Split"]

P = ParamSpec("P")
R = TypeVar("R")


def _in_thread(
    method: Callable[Concatenate[Index, P], R],
) -> Callable[Concatenate[Index, P], Coroutine[object, object, R]]:
    """The same method for async callers, run in a worker thread."""

    async def threaded(self: Index, /, *args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio  # its caller has it; everyone else need not wait for ssl and the rest of it

        return await asyncio.to_thread(method, self, *args, **kwargs)

    threaded.__doc__ = f"``{method.__name__}`` for async callers, in a worker thread."
    return threaded


class Index:
    """An open collection with the models that fill and search it; safe in threads. ``create`` makes one, ``open`` opens one that exists."""

    def __init__(
        self,
        store: Store,
        models: Mapping[str, LazyModel],
        *,
        reranker: LazyModel | None = None,
        text_key: str = "text",
        fields: Sequence[str] | None = None,
    ) -> None:
        """Put a store and the models of its fields together; ``create``, ``open`` and ``adopt`` are the usual ways.

        ``fields`` are those to search where the collection has others too.
        """
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
        dense: str | TextEncoder | None = None,
        sparse: str | TextEncoder | None = None,
        reranker: str | Reranker | None = None,
        text: bool = False,
        filterable: Mapping[str, FilterKind | str] | None = None,
        fusion: Fusion | None = None,
        backend: str = "torch",
        dtype: str | None = None,
        client: object | None = None,
    ) -> Index:
        """Make a collection, or open it where it exists with this very schema; raises SchemaMismatch where it is something else.

        Models are given by name (``builtin:dense``, a folder, a Hub name) or as objects; ``text`` adds a leg by the store's own BM25. ``filterable``
        names the payload fields that ``where`` may speak of. ``fusion`` is how legs are fused by default.

        ``backend`` and ``dtype`` are those of the model classes, for every model given by name: objects stay as they are, and static models run on
        numpy whatever is said. The collection remembers in which type its vectors were made, not by which backend.
        """
        running = Running(backend, dtype)
        models = given(dense, sparse, running)
        if not models and not text:
            raise ValueError("nothing to search by: give dense=, sparse= or text=True")
        again = reranker_given(reranker, running)
        schema = schema_for(collection, models, again, text=text, filterable=filterable or {}, fusion=fusion)
        store = open_store(url, collection, schema, client=client)
        try:
            store.create()
        except BaseException:
            store.close()
            raise
        return cls(store, models, reranker=again, text_key=text_key_of(schema))

    @classmethod
    def open(
        cls,
        url: str,
        *,
        collection: str,
        dense: str | TextEncoder | None = None,
        sparse: str | TextEncoder | None = None,
        reranker: str | Reranker | None = None,
        trust_model: bool = False,
        backend: str = "torch",
        dtype: str | None = None,
        client: object | None = None,
    ) -> Index:
        """Open a collection that exists; it remembers its models, which are loaded when first needed.

        A model given here takes the place of the remembered one: it must be the same, or ``SchemaMismatch`` says what differs. ``trust_model``
        allows another fingerprint, never another dimension.

        ``backend`` and ``dtype`` hold for every model remembered or given by name. On openvino and onnx ``dtype`` None means the type that the
        collection's vectors were made in, where graphs can have it; on torch and auto it means the default. The type of a remembered model is
        compared with the collection's only where ``dtype`` names one. A reranker is not compared at all, since nothing of it is stored: with
        ``dtype`` None a remembered one runs on openvino and onnx in the type it had, and one given by name in the default.
        """
        running = Running(backend, dtype)
        store = open_store(url, collection, client=client)
        try:
            schema = store.schema
            models = remembered(schema, given(dense, sparse, running, schema.models), running, trust=trust_model)
            again = reranker_of(schema, reranker, running)
            return cls(store, models, reranker=again, text_key=text_key_of(schema))
        except BaseException:
            store.close()
            raise

    @classmethod
    def adopt(
        cls,
        url: str,
        *,
        collection: str,
        dense: tuple[str, str | TextEncoder] | None = None,
        sparse: tuple[str, str | TextEncoder] | None = None,
        reranker: str | Reranker | None = None,
        text_key: str = "text",
        filterable: Mapping[str, FilterKind | str] | None = None,
        backend: str = "torch",
        dtype: str | None = None,
        client: object | None = None,
    ) -> Index:
        """Search and fill a collection that somebody else made, as it is: ``dense=("their_vector", model)``.

        Nothing of ours is written beside the records, so that the models must be named each time. ``text_key`` is the payload key of their texts.
        Raises SchemaMismatch where a vector is not there or has another dimension than its model. ``backend`` and ``dtype`` are as for
        ``create``; nothing tells in which type the vectors that are there were made.
        """
        running = Running(backend, dtype)
        store = adopt_store(url, collection, filterable=kinds_of(filterable or {}), client=client)
        try:
            models = adopted(store.schema, dense, sparse, running)
            again = reranker_given(reranker, running)
            return cls(store, models, reranker=again, text_key=text_key, fields=tuple(models))
        except BaseException:
            store.close()
            raise

    @property
    def store(self) -> Store:
        """The store underneath."""
        return self._store

    @property
    def schema(self) -> Schema:
        """The collection's schema, with the references of its models."""
        return self._store.schema

    def ingest(
        self,
        documents: Iterable[object],
        *,
        split: Split | None = None,
        batch: int = 512,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Encode and store documents (mappings with ``id`` and ``text``, or ``Document``) from any iterable; the same id replaces.

        Long texts are split into windows where ``split`` says how; else a model cuts them, and the report counts those. Raises IngestFailed and
        IngestInterrupted, which carry the report of what was confirmed until then.
        """
        spans = None if split is None else spans_of(list(self._models.values()), split)
        options = IngestOptions(batch=batch, spans=spans, text_key=self._text_key)
        return ingest(
            self._store,
            documents,
            self._encoders(list(self._models), counting=True),
            options=options,
            progress=progress,
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
    ) -> SearchResult:
        """The best hits for a question in words.

        ``mode`` is "dense", "sparse", "text" or "hybrid"; None is hybrid where there are several legs. ``where`` is a Filter or text such as
        ``year >= 2020``. ``rerank`` True lets the index's own reranker order ``depth`` candidates, or any object with ``predict``.
        ``explain`` adds the terms that matched; ``fold`` gives a document that was split only once.
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
    ) -> list[SearchResult]:
        """The answers to several questions, in order: encoded together, and one round trip where the store can. Options as for ``search``."""
        if isinstance(queries, str):
            raise TypeError("search_many takes a list of queries; search takes one")
        queries = list(queries)
        options = SearchOptions(
            mode=_mode(mode),
            limit=limit,
            offset=offset,
            where=_filter(where),
            fusion=fusion,
            depth=depth,
            effort=effort or Default(),
            explain=explain,
            fold=fold,
            text_key=self._text_key,
            fields=self._fields,
        )
        return search(
            self._store, self._encoders(self._searched(options.mode)), queries, options, self._last_word(rerank)
        )

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.PAYLOAD) -> list[Record]:
        """The records of these ids in the order asked, absent ones left out; of a split document, its first window."""
        return self._store.get(_ids(ids), parts=parts)

    def count(self, where: Filter | str | None = None) -> int:
        """How many records there are; each window of a split document is one."""
        return self._store.count(_filter(where))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents, with all windows of those that were split; absent ids are silent."""
        asked = _ids(ids)
        windows = [
            window_id(record.id, number)
            for record in self._store.get(asked, parts=Parts.PAYLOAD)
            for number in range(1, window_count(record.payload))
        ]
        self._store.delete([*asked, *windows])
        self._store.refresh()

    def drop(self) -> None:
        """Remove the collection with all it holds."""
        self._store.drop()

    def close(self) -> None:
        """Give back what the store holds; a second time does nothing."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    aingest = _in_thread(ingest)
    asearch = _in_thread(search)
    asearch_many = _in_thread(search_many)
    aget = _in_thread(get)
    acount = _in_thread(count)
    adelete = _in_thread(delete)

    def _searched(self, mode: Mode | None) -> list[str]:
        """The fields a mode needs encoders for, so that a text search loads no model."""
        schema = self._store.schema
        kinds = [FieldKind.DENSE, FieldKind.SPARSE] if mode in {None, Mode.HYBRID} else [FieldKind(str(mode))]
        fields = [name for kind in kinds if kind is not FieldKind.TEXT for name in schema.of_kind(kind)]
        return fields if self._fields is None else [name for name in fields if name in self._fields]

    def _encoders(self, fields: Sequence[str], *, counting: bool = False) -> list[FieldEncoder]:
        """The encoders of fields; ``counting`` lets them tell which texts they cut, which costs a copy of the tokenizer."""
        return [
            FieldEncoder(name, FieldKind(model.kind.value), model.load(), cut_test(model) if counting else None)
            for name, model in self._models.items()
            if name in fields
        ]

    def _last_word(self, rerank: Reranker | bool) -> Reranker | None:
        if rerank is False or rerank is None:
            return None
        if rerank is not True:
            if not hasattr(rerank, "predict"):
                raise TypeError(f"rerank is True, False or a model with predict, not {rerank!r}")
            return rerank
        if self._reranker is None:
            raise ValueError("this index has no reranker: give one to Index.open, or pass rerank=model")
        model: Reranker = self._reranker.load()
        return model


def _mode(mode: Mode | str | None) -> Mode | None:
    try:
        return None if mode is None else Mode(mode)
    except ValueError as error:
        raise ValueError(f"mode is one of {', '.join(Mode)}, not {mode!r}") from error


def _filter(where: Filter | str | None) -> Filter | None:
    if not isinstance(where, str):
        return where
    from st_connectors.where import parse_where

    return parse_where(where)


def _ids(ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"ids is a list of ids; for one, [{ids!r}]")
    return list(ids)
