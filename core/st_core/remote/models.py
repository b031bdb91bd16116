"""The three model classes over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from urllib.parse import quote

import numpy as np

from st_core.engine.inputs import as_texts, check_positive
from st_core.errors import ModelUnavailable, ModelUnsupported
from st_core.protocols import ModelKind, ModelRef
from st_core.remote.apis import (
    Api,
    ApiCall,
    Options,
    dense_request,
    dense_rows,
    rerank_request,
    score_request,
    scores_of,
    sparse_request,
    sparse_rows,
)
from st_core.remote.connections import Connections, Retries, split_address
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RemoteCrossEncoder", "RemoteSentenceTransformer", "RemoteSparseEncoder"]

Part = TypeVar("Part", bound=Sized)
Item = TypeVar("Item")

PROBE = "What is near what?"
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class _Remote:
    """A model on a server; safe in threads. ``close`` it, or use it in a ``with`` statement."""

    kind: ModelKind

    def __init__(
        self,
        address: str,
        *,
        api: str | None = None,
        api_key: str | None = None,
        batch_size: int = 32,
        in_flight: int = 4,
        timeout: float = 60.0,
        attempts: int = 5,
        wait: float = 0.2,
        ca_file: str | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        """Take the address of a server, with the name of a model after ``#``; nothing is sent yet.

        ``api`` is st-connectors, tei, openai or cohere; None asks the server. Up to ``in_flight`` batches of
        ``batch_size`` inputs are sent at a time. A request is sent up to ``attempts`` times, ``wait`` seconds after the
        first one and twice as long after each more; ``timeout`` is that of one attempt. ``prompts`` are put in front of
        texts for servers that have none of their own. Raises ValueError for wrong arguments.
        """
        check_positive("batch_size", batch_size)
        check_positive("in_flight", in_flight)
        check_positive("attempts", attempts)
        url, self.model = split_address(address)
        if api is not None and api not in list(Api):
            raise ValueError(f"unknown API {api!r}; expected one of {', '.join(Api)}")
        self.address = address
        self.batch_size = batch_size
        self.in_flight = in_flight
        self._connections = Connections(url, api_key, timeout, Retries(attempts, wait), ca_file)
        self._requested_api = None if api is None else Api(api)
        self._prompts = dict(prompts or {})

    def close(self) -> None:
        """Close idle connections."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    @cached_property
    def _description(self) -> Mapping[str, Any] | None:
        """What a server of our own says about the model; None for another server."""
        if self._requested_api not in (None, Api.OWN):
            return None
        name = self.model or self._name_of_only_model()
        found = None if name is None else self._connections.get(f"/v1/models/{quote(name, safe='')}")
        described = found.get("st_connectors") if isinstance(found, Mapping) else None
        if described is None:
            if self._requested_api is Api.OWN:
                raise ModelUnavailable(f"{self.address}: the server does not serve this model; see its /v1/models")
            return None
        kind = described["ref"]["kind"]
        if kind != self.kind:
            raise ModelUnsupported(f"{self.address}: expected a {self.kind} model, got one that is {kind}")
        return {**described, "name": name}

    def _name_of_only_model(self) -> str | None:
        """Return the name of the only model of this kind on a server of our own."""
        info = self._connections.get("/info")
        models = info.get("models") if isinstance(info, Mapping) else None
        if not isinstance(models, Mapping):
            return None
        names = [name for name, each in models.items() if each.get("kind") == self.kind]
        if len(names) != 1:
            raise ModelUnavailable(
                f"{self.address}: the server has {len(names)} {self.kind} models; name one after #: "
                f"{', '.join(names) or 'none'}"
            )
        return str(names[0])

    @cached_property
    def api(self) -> Api:
        """The API of the server."""
        if self._requested_api is not None:
            return self._requested_api
        if self._description is not None:
            return Api.OWN
        info = self._connections.get("/info")
        if isinstance(info, Mapping) and "model_id" in info:
            return Api.TEI
        return Api.COHERE if self.kind is ModelKind.RERANKER else Api.OPENAI

    @property
    def ref(self) -> ModelRef | None:
        """The description of the model with its fingerprint, from a server of our own; None from another one."""
        return None if self._description is None else ModelRef.from_json(self._description["ref"])

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts by name: the server's own, or those of the constructor."""
        ref = self.ref
        return dict(self._prompts if ref is None else ref.prompts)

    @property
    def max_seq_length(self) -> int | None:
        """The maximum number of tokens of a text, None if it is unknown or unlimited."""
        ref = self.ref
        return None if ref is None else ref.max_tokens

    def _named(self) -> str | None:
        """Return the name of the model in requests."""
        return self.model if self._description is None else cast("str", self._description["name"])

    def _in_batches(
        self, inputs: Sequence[Item], call_for: Callable[[Sequence[Item]], ApiCall], read: Callable[[Any], Part]
    ) -> list[Part]:
        """Return what is read from the answers for all batches of inputs, in order."""
        batches = [inputs[start : start + self.batch_size] for start in range(0, len(inputs), self.batch_size)]

        def send(batch: Sequence[Item]) -> Part:
            call = call_for(batch)
            answer = self._connections.post(call.path, call.body)
            try:
                part = read(answer)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise ModelUnavailable(
                    f"{self.address}: the answer of {call.path} does not have the form of the API {self.api}; set api="
                ) from error
            if len(part) != len(batch):
                raise ModelUnavailable(f"{self.address}: expected {len(batch)} results, got {len(part)}")
            return part

        if len(batches) < 2 or self.in_flight == 1:
            return [send(batch) for batch in batches]
        with ThreadPoolExecutor(min(self.in_flight, len(batches)), "st_core-remote") as threads:
            return list(threads.map(send, batches))


class _RemoteEncoder(_Remote):
    """What remote encoders share: roles and prompts."""

    def _role(self, texts: Sequence[str], options: Options) -> tuple[list[str], Options]:
        """Return texts and options as the server understands them: with prompts in front where it has none."""
        if self.api is Api.OWN or (self.api is Api.TEI and options.prompt is None and not self._prompts):
            return list(texts), options
        prompt = options.prompt
        if prompt is None and options.prompt_name is not None:
            if options.prompt_name not in self._prompts:
                raise ValueError(
                    f"unknown prompt_name {options.prompt_name!r}; expected one of {sorted(self._prompts)}"
                )
            prompt = self._prompts[options.prompt_name]
        if prompt is None and options.role is not None:
            names = ("query",) if options.role == "query" else DOCUMENT_PROMPTS
            prompt = next((self._prompts[name] for name in names if name in self._prompts), None)
        changed = Options(options.role, None, None, options.normalize, options.dimensions, options.max_active_dims)
        return [f"{prompt}{text}" for text in texts] if prompt else list(texts), changed


class RemoteSentenceTransformer(_RemoteEncoder):
    """A dense model on a server, with the methods of :class:`st_core.SentenceTransformer`.

    Vectors from ``st-connectors serve`` are those of the local model. Those of the APIs of OpenAI and Cohere are scaled
    as their server does it.
    """

    kind = ModelKind.DENSE

    @property
    def similarity_fn_name(self) -> str:
        """The name of the function that compares vectors: that of the model on a server of our own, else cosine."""
        return "cosine" if self._description is None else str(self._description["similarity"])

    @cached_property
    def _width(self) -> int:
        ref = self.ref
        return int(self.encode([PROBE]).shape[1]) if ref is None else ref.dimension

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors; a server that does not say it encodes a probe text."""
        return self._width

    def encode(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> NDArray[np.float32]:
        """Return the vectors of texts [n, d] in order, float32; for a single text, return one vector [d].

        Raises ModelUnavailable if the server does not answer, InputTooLong and ValueError for what it refuses.
        """
        return self._encoded(inputs, None, prompt_name, prompt, normalize_embeddings, truncate_dim)

    def encode_query(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> NDArray[np.float32]:
        """Call :meth:`encode` for queries, with the model's prompt and route for queries."""
        return self._encoded(inputs, "query", prompt_name, prompt, normalize_embeddings, truncate_dim)

    def encode_document(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> NDArray[np.float32]:
        """Call :meth:`encode` for documents, with the model's prompt and route for documents."""
        return self._encoded(inputs, "document", prompt_name, prompt, normalize_embeddings, truncate_dim)

    def _encoded(  # noqa: PLR0917 - private
        self,
        inputs: str | Sequence[str],
        role: str | None,
        prompt_name: str | None,
        prompt: str | None,
        normalize: bool,
        dimensions: int | None,
    ) -> NDArray[np.float32]:
        listed = [inputs] if isinstance(inputs, str) else cast("list[str]", as_texts(inputs))
        texts, options = self._role(listed, Options(role, prompt_name, prompt, normalize, dimensions))
        name, api = self._named(), self.api
        parts = self._in_batches(
            texts, lambda batch: dense_request(api, name, batch, options), lambda answer: dense_rows(api, answer)
        )
        width = (self._width if dimensions is None else dimensions) if not parts else 0
        rows = np.concatenate(parts) if parts else np.zeros((0, width), np.float32)
        if normalize and api in (Api.OPENAI, Api.COHERE):
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return cast("NDArray[np.float32]", rows[0] if isinstance(inputs, str) else rows)


class RemoteSparseEncoder(_RemoteEncoder):
    """A sparse model on a server, with the methods of :class:`st_core.SparseEncoder`.

    ``dimension`` is the size of the vocabulary, which only a server of our own says itself.
    """

    kind = ModelKind.SPARSE

    def __init__(self, address: str, *, dimension: int | None = None, **options: Any) -> None:
        """Take the address of a server; the other options are those of :class:`RemoteSentenceTransformer`."""
        super().__init__(address, **options)
        self._dimension = dimension

    def get_embedding_dimension(self) -> int | None:
        """Return the size of the vocabulary, None if it is unknown."""
        ref = self.ref
        return self._dimension if ref is None else ref.dimension

    def encode(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        max_active_dims: int | None = None,
    ) -> Any:
        """Return the vectors of texts as a SparseMatrix [n, V]; for a single text, return a SparseVector.

        Raises the errors of :meth:`RemoteSentenceTransformer.encode`.
        """
        return self._encoded(inputs, Options(None, prompt_name, prompt, max_active_dims=max_active_dims))

    def encode_query(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        max_active_dims: int | None = None,
    ) -> Any:
        """Call :meth:`encode` for queries, with the model's prompt and route for queries."""
        return self._encoded(inputs, Options("query", prompt_name, prompt, max_active_dims=max_active_dims))

    def encode_document(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        max_active_dims: int | None = None,
    ) -> Any:
        """Call :meth:`encode` for documents, with the model's prompt and route for documents."""
        return self._encoded(inputs, Options("document", prompt_name, prompt, max_active_dims=max_active_dims))

    def _encoded(self, inputs: str | Sequence[str], options: Options) -> Any:
        listed = [inputs] if isinstance(inputs, str) else cast("list[str]", as_texts(inputs))
        texts, options = self._role(listed, options)
        name, api, width = self._named(), self.api, self.get_embedding_dimension()
        parts = self._in_batches(
            texts,
            lambda batch: sparse_request(api, name, batch, options),
            lambda answer: sparse_rows(api, answer, width),
        )
        columns = max((part.shape[1] for part in parts), default=width or 0)
        matrix = SparseMatrix.concatenate(parts, columns)
        return matrix[0] if isinstance(inputs, str) else matrix


class RemoteCrossEncoder(_Remote):
    """A reranker on a server, with the methods of :class:`st_core.CrossEncoder`.

    Scores from ``st-connectors serve`` are those of the local model; those of other servers are between 0 and 1.
    """

    kind = ModelKind.RERANKER

    @property
    def num_labels(self) -> int:
        """The number of scores of a pair."""
        ref = self.ref
        return 1 if ref is None else ref.dimension

    def predict(self, inputs: Sequence[tuple[str, str]] | tuple[str, str]) -> Any:
        """Return the scores of pairs in order, float32 [n], or [n, labels] for a model with several labels.

        For a single pair, return a scalar or an array [labels]. Raises the errors of
        :meth:`RemoteSentenceTransformer.encode`.
        """
        is_single = len(inputs) == 2 and all(isinstance(each, str) for each in inputs)
        pairs = cast("list[tuple[str, str]]", [tuple(inputs)] if is_single else [tuple(pair) for pair in inputs])
        scores = self._scores(pairs)
        scores = scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores
        return scores[0] if is_single else scores

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        name = self._named()
        if self.api is Api.OWN:
            parts = self._in_batches(
                pairs, lambda batch: score_request(name, batch), lambda answer: np.asarray(answer["scores"], np.float32)
            )
            return np.concatenate(parts) if parts else np.zeros((0, self.num_labels), np.float32)
        groups = [
            (query, [document for _, document in group]) for query, group in groupby(pairs, key=lambda pair: pair[0])
        ]
        parts = [part for query, documents in groups for part in self._ranked(query, documents)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _ranked(self, query: str, documents: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the scores of documents for one query, in parts."""
        name, api = self._named(), self.api
        return self._in_batches(
            documents,
            lambda batch: rerank_request(api, name, query, batch),
            _ranked_scores,
        )

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[dict[str, Any]]:
        """Return the documents by score, best first, as ``{"corpus_id", "score"}``; equal scores stay in order."""
        scores = self.predict([(query, document) for document in documents]) if documents else np.zeros(0, np.float32)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [{"corpus_id": int(index), "score": scores[index]} for index in order]


def _ranked_scores(answer: Any) -> NDArray[np.float32]:
    """Return the scores of all documents of a rerank; raise ValueError if one is missing."""
    ranks = answer["results"] if isinstance(answer, Mapping) else answer
    scores = scores_of(ranks)
    if np.isnan(scores).any():
        raise ValueError("a score is missing")
    return scores
