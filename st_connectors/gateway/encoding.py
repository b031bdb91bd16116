"""Models that compute the texts of many requests together, in the queues of the server."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

from st_connectors.models import LazyModel
from st_connectors.server.batching import Batcher, Job, QueueLimits
from st_connectors.server.calls import Embed, EmbedSparse, Reading, Role
from st_connectors.server.models import ServedModel
from st_core.protocols import ModelKind

__all__ = ["CLIENT", "BatchedModel", "Models"]

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""The client whose texts are encoded, between which the queues are fair."""


class BatchedModel:
    """An encoder whose calls of several threads are computed together; safe in threads.

    A model on another server is called directly, because it is batched there.
    """

    def __init__(self, model: LazyModel, pool: ThreadPoolExecutor) -> None:
        """Store the model, which is loaded on first use."""
        self._model = model
        self._pool = pool
        self._lock = threading.Lock()
        self._served: ServedModel | None = None
        self._batcher: Batcher | None = None

    @property
    def kind(self) -> ModelKind:
        """The kind of the model."""
        return self._model.kind

    def loaded(self) -> Any:
        """Return the model itself."""
        return self._model.load()

    def encode_document(self, texts: Sequence[str]) -> Any:
        """Return the vectors of documents, float32 [n, d] or a SparseMatrix [n, V]."""
        return self._encode(list(texts), Role.DOCUMENT)

    def encode_query(self, texts: Sequence[str]) -> Any:
        """Return the vectors of queries, float32 [n, d] or a SparseMatrix [n, V]."""
        return self._encode(list(texts), Role.QUERY)

    def predict(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Return the scores of pairs [n], of a reranker."""
        return self._model.load().predict(pairs)

    def _encode(self, texts: list[str], role: Role) -> Any:
        model = self._model.load()
        if not hasattr(model, "compute"):
            return model.encode_query(texts) if role is Role.QUERY else model.encode_document(texts)
        served, batcher = self._queue(model)
        reading = Reading(role)
        if self._model.kind is ModelKind.SPARSE:
            return self._result(served, batcher, EmbedSparse(None, tuple(texts), reading)).matrix
        # The store scales vectors where its field compares by cosine, as it does in an ingest.
        return self._result(served, batcher, Embed(None, tuple(texts), reading, normalize=False)).rows

    def _result(self, served: ServedModel, batcher: Batcher, call: Embed | EmbedSparse) -> Any:
        task = served.task(call)
        assert task is not None
        job: Job[Any] = Job(CLIENT.get(), task.prepare, task.finish)
        return batcher.submit(job).future.result()

    def _queue(self, model: Any) -> tuple[ServedModel, Batcher]:
        with self._lock:
            if self._served is None or self._batcher is None:
                name = self._model.kind.value
                self._served = ServedModel(name, self._model.kind, [model], max_tokens=sys.maxsize)
                self._batcher = Batcher(name, self._served.computes, self._pool, QueueLimits())
            return self._served, self._batcher

    def close(self) -> None:
        """Stop the queue; texts that wait are not encoded."""
        with self._lock:
            if self._batcher is not None:
                self._batcher.close()
        self._model.close()


class Models:
    """The models of all collections, each once; safe in threads."""

    def __init__(self) -> None:
        """Begin without models."""
        self._models: dict[str, BatchedModel] = {}
        self._pool = ThreadPoolExecutor(4, "gateway-models")
        self._lock = threading.Lock()

    def shared(self, key: str, make: Callable[[], LazyModel]) -> BatchedModel:
        """Return the model of a key, which ``make`` returns on first use."""
        with self._lock:
            if key not in self._models:
                self._models[key] = BatchedModel(make(), self._pool)
            return self._models[key]

    def close(self) -> None:
        """Stop all queues and their threads."""
        with self._lock:
            for model in self._models.values():
                model.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
