"""The models of a server with their queues: from the calls of a request to their results."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from st_connectors.server.batching import Batcher, Job
from st_connectors.server.calls import Call, Embed, EmbedSparse, EmbedTokens, Result, Score, kind_of
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.loading import load
from st_connectors.server.metrics import SECONDS, TEXTS, TOKENS, Metrics
from st_connectors.server.models import ServedModel
from st_connectors.server.settings import Settings
from st_connectors.server.shapes.routes import Catalog

__all__ = ["Service"]

logger = logging.getLogger(__name__)


class Service:
    """The models of a server; safe in threads. ``close`` it at the end."""

    def __init__(self, settings: Settings) -> None:
        """Store the settings; ``load`` loads the models."""
        self.settings = settings
        self.metrics = Metrics()
        self.models: dict[str, ServedModel] = {}
        self._named: Mapping[str, ServedModel] = {}
        self._batchers: dict[str, Batcher] = {}
        self._pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1)), "server")
        self._apart = ThreadPoolExecutor(1, "apart")
        """Computes vectors of tokens, one call at a time, beside the threads that all requests need."""
        self._lock = threading.Lock()
        self._unbatched = 0
        self.is_ready = False
        self.error: Exception | None = None

    def load(self) -> None:
        """Load all models and start their queues; raises the errors of loading."""
        for settings in self.settings.models:
            kind, loaded = load(settings)
            if settings.max_seq_length is not None:
                for each in loaded:
                    each.max_seq_length = settings.max_seq_length
            limits = self.settings.limits
            served = ServedModel(
                settings.name,
                kind,
                loaded,
                aliases=settings.aliases,
                auto_truncate=limits.auto_truncate,
                max_tokens=limits.request_tokens,
            )
            self.models[settings.name] = served
            self._batchers[settings.name] = Batcher(
                settings.name, served.computes, self._pool, self.settings.queue, self._watch
            )
            logger.info("loaded the %s model %r from %s", kind, settings.name, settings.path)
        self._named = {name: each for each in self.models.values() for name in (each.name, *each.aliases)}
        self.is_ready = True
        logger.info("ready")

    def _watch(self, pieces: int, tokens: int, _seconds: float) -> None:
        self.metrics.observe("te_batch_next_size", [pieces], TEXTS)
        self.metrics.observe("te_batch_next_tokens", [tokens], TOKENS)

    @property
    def catalog(self) -> Catalog:
        """The kinds of the models by name."""
        return {name: model.kind for name, model in self._named.items()}

    def model(self, name: str) -> ServedModel:
        """Return a model by its name or an alias; raise Fault for an unknown one."""
        served = self._named.get(name)
        if served is None:
            raise Fault(
                FaultKind.UNKNOWN_MODEL, f"unknown model; expected one of {', '.join(self._named)}", field="model"
            )
        return served

    def _model_for(self, call: Call) -> ServedModel:
        """Return the model that a call names, else the only one of the right kind; raise Fault if there is none."""
        if call.model is not None:
            served = self.model(call.model)
            served.check_kind(call)
            return served
        kind = kind_of(call)
        fitting = [each for each in self.models.values() if kind in (None, each.kind)]
        if not fitting:
            raise Fault(FaultKind.WRONG_KIND, f"no {kind} model is served; start the server with one")
        if len(fitting) > 1 and kind is not None:
            names = ", ".join(each.name for each in fitting)
            raise Fault(
                FaultKind.UNKNOWN_MODEL, f"several {kind} models are served; name one of {names}", field="model"
            )
        return fitting[0]

    def submit(self, calls: Sequence[Call], client: str) -> list[Future[Result]]:
        """Accept the calls of a request and return a future for each; raise Fault for a call that is refused.

        If one call is refused, those before it are cancelled.
        """
        if not self.is_ready:
            raise Fault(FaultKind.UNAVAILABLE, "the models are being loaded", retry_after=1)
        limit = self.settings.limits.texts
        if sum(_inputs(call) for call in calls) > limit:
            raise Fault(FaultKind.TOO_MANY, f"the request has more than {limit} texts; divide it")
        chosen = [self._model_for(call) for call in calls]
        futures: list[Future[Result]] = []
        try:
            for call, served in zip(calls, chosen, strict=True):
                futures.append(self._submit(call, served, client))
        except Fault:
            for future in futures:
                future.cancel()
            raise
        return futures

    def _submit(self, call: Call, served: ServedModel, client: str) -> Future[Result]:
        task = served.task(call)
        if task is None:
            return self._answer_unbatched(call, served)
        job: Job[Result] = Job(client, task.prepare, task.finish)
        return self._batchers[served.name].submit(job).future

    def _answer_unbatched(self, call: Call, served: ServedModel) -> Future[Result]:
        """Answer a call that no batch computes; raise Fault if too many of them wait."""
        with self._lock:
            if self._unbatched >= self.settings.queue.jobs:
                raise Fault(FaultKind.OVERLOADED, "the queue is full; try again later", retry_after=1)
            self._unbatched += 1
        pool = self._apart if isinstance(call, EmbedTokens) else self._pool
        future = pool.submit(served.answer, call)
        future.add_done_callback(self._forget_unbatched)
        return future

    def _forget_unbatched(self, _future: Future[Result]) -> None:
        with self._lock:
            self._unbatched -= 1

    def run(self, work: Callable[[], Any]) -> Future[Any]:
        """Run other work on a thread of the pool."""
        return self._pool.submit(work)

    def record(self, results: Sequence[Result]) -> None:
        """Count the results of a request."""
        for result in results:
            usage = result.usage
            self.metrics.count("st_tokens_total", usage.total, model=usage.model)
            self.metrics.count("st_truncated_total", int(usage.is_truncated.sum()), model=usage.model)
            self.metrics.observe("te_request_input_length", usage.tokens.tolist(), TOKENS)
            self.metrics.observe("te_request_tokenization_duration", [usage.tokenize_s], SECONDS)
            self.metrics.observe("te_request_queue_duration", [usage.queue_s], SECONDS)
            self.metrics.observe("te_request_inference_duration", [usage.compute_s], SECONDS)

    def gauges(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yield the gauges of the queues."""
        for name, batcher in self._batchers.items():
            yield "te_queue_size", {"model": name}, batcher.jobs
        for name, batcher in self._batchers.items():
            yield "st_queue_tokens", {"model": name}, batcher.tokens

    def drain(self) -> None:
        """Refuse new requests, and wait for those that are in the server, up to the limit of the settings."""
        self.is_ready = False
        for batcher in self._batchers.values():
            batcher.drain(self.settings.limits.drain_s)

    def close(self) -> None:
        """Stop the queues and their threads; closing twice is not an error."""
        self.is_ready = False
        for batcher in self._batchers.values():
            batcher.close()
        for pool in (self._pool, self._apart):
            pool.shutdown(wait=True, cancel_futures=True)


def _inputs(call: Call) -> int:
    """Return the number of inputs of a call."""
    match call:
        case Score():
            return len(call.pairs)
        case Embed() | EmbedSparse():
            return len(call.texts)
        case _:
            return len(getattr(call, "texts", getattr(call, "ids", ())))
