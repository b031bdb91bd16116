"""The requests that make OpenSearch call an encoder server, without sending any.

Verified on 2.19. What differs on 3.x follows its documentation and sources, and has not been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from st_connectors.errors import Unsupported
from st_connectors.opensearch.wire import rrf_pipeline
from st_connectors.schema import Rrf, Weighted
from st_connectors.setup.encoder import Encoder, Model
from st_connectors.setup.options import DENSE, SPARSE, Options, mark
from st_connectors.setup.requests import KEY, Request, digest

__all__ = ["META", "Kind", "Names", "Step", "Version", "plan", "search_body"]

Body: TypeAlias = dict[str, Any]
Version: TypeAlias = tuple[int, int]

META = "st_connectors_setup"
"""The key in the ``_meta`` of an index by which it is recognised."""
SEMANTIC_SINCE = (3, 1)
SKIPS_SINCE = (3, 0)
_SPACES = {None: "cosinesimil", "cosine": "cosinesimil", "dot": "innerproduct", "euclidean": "l2"}


class Kind(StrEnum):
    """What a step creates."""

    GROUP = "model group"
    CONNECTOR = "connector"
    MODEL = "model"
    INGEST = "ingest pipeline"
    SEARCH = "search pipeline"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Step:
    """One object: the request that creates it, and the description by which it is recognised later.

    ``uses`` are the connectors and models whose ids its body contains.
    """

    kind: Kind
    name: str
    request: Request
    description: str

    @property
    def reference(self) -> str:
        """The text that stands for the id of the object in bodies."""
        return f"<{self.kind} {self.name}>"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of all objects that a set-up can create."""

    name: str

    @property
    def ingest(self) -> str:
        """The ingest pipeline."""
        return f"{self.name}-ingest"

    @property
    def search(self) -> str:
        """The search pipeline without rerank, which searches of the index use by default."""
        return f"{self.name}-search"

    @property
    def rerank(self) -> str:
        """The search pipeline with rerank."""
        return f"{self.name}-rerank"

    @property
    def models(self) -> tuple[str, ...]:
        """The connectors and models."""
        return tuple(f"{self.name}-{part}" for part in _PARTS)


_PARTS = ("dense-document", "dense-query", "sparse-document", "sparse-query", "reranker")


def plan(options: Options, encoder: Encoder, version: Version) -> tuple[Step, ...]:
    """Return the steps in the order in which they are sent.

    Raises Unsupported for what this version does not have, and ValueError for a fusion that no version computes.
    """
    _check(options, encoder, version)
    remote = [step for part, model in _remote_models(encoder) for step in _model_steps(options, encoder, part, model)]
    pipelines = [_search_pipeline(options, encoder, is_reranking=False)]
    if encoder.reranker is not None:
        pipelines.append(_search_pipeline(options, encoder, is_reranking=True))
    ingest = [] if options.is_semantic else [_ingest_pipeline(options, encoder, version)]
    return (_group(options), *remote, *ingest, *pipelines, _index(options, encoder))


def _check(options: Options, encoder: Encoder, version: Version) -> None:
    if options.is_semantic and version < SEMANTIC_SINCE:
        raise _unsupported(f"--semantic needs OpenSearch 3.1, got {version[0]}.{version[1]}: leave it out")
    if encoder.dense is not None and encoder.dense.similarity not in _SPACES:
        raise _unsupported(f"the model {encoder.dense.name} compares by {encoder.dense.similarity}: choose another one")
    if isinstance(options.fusion, Rrf) and options.fusion.weights is not None:
        raise _unsupported("reciprocal rank fusion has no weights in OpenSearch: use --fusion rrf:60 or weighted:…")

    legs = 1 if options.is_semantic else sum(model is not None for model in (encoder.dense, encoder.sparse))
    if isinstance(options.fusion, Weighted) and len(options.fusion.weights) != legs:
        raise ValueError(f"--fusion: expected {legs} weights, one for each leg, got {len(options.fusion.weights)}")


def _unsupported(message: str) -> Unsupported:
    return Unsupported(message, store="opensearch", operation="setup")


def _remote_models(encoder: Encoder) -> list[tuple[str, Model]]:
    """Return the name of each remote model after that of the set-up; queries have a model of their own.

    A model can encode queries in another way than documents, and the connector names which of them it sends.
    """
    models = [(DENSE, encoder.dense), (SPARSE, encoder.sparse)]
    found = [(f"{kind}-{role}", model) for kind, model in models if model for role in ("document", "query")]
    return [*found, *([("reranker", encoder.reranker)] if encoder.reranker else [])]


def _group(options: Options) -> Step:
    description = mark(options.name)
    body = {"name": options.name, "description": description}
    return Step(Kind.GROUP, options.name, Request("POST", "/_plugins/_ml/model_groups/_register", body), description)


def _model_steps(options: Options, encoder: Encoder, part: str, model: Model) -> tuple[Step, Step]:
    """Return the steps of a connector and of the remote model that uses it."""
    name = f"{options.name}-{part}"
    connector = {
        "name": name,
        "version": "1",
        "protocol": "http",
        "parameters": {"model": model.name},
        # An empty credential is refused.
        "credential": {"key": f"${KEY}" if encoder.has_key else NONE_NEEDED},
        "actions": [_action(encoder, part, model)],
        # Without these OpenSearch before 3.6 waits 30,000 seconds; the unit is seconds in all versions.
        "client_config": {
            "max_connection": 64,
            "connection_timeout": 5,
            "read_timeout": options.timeout_s,
            "max_retry_times": 2,
            "retry_backoff_millis": 200,
            "retry_timeout_seconds": options.timeout_s,
        },
    }
    connecting = _marked(Kind.CONNECTOR, name, "/_plugins/_ml/connectors/_create", connector, options.name)
    registration = {
        "name": name,
        "function_name": "remote",
        "model_group_id": f"<{Kind.GROUP} {options.name}>",
        "connector_id": connecting.reference,
        **({"model_config": _model_config(part, model)} if part != "reranker" else {}),
    }
    path = "/_plugins/_ml/models/_register?deploy=true"
    return connecting, _marked(Kind.MODEL, name, path, registration, options.name, connector)


NONE_NEEDED = "none"
"""The key for servers without keys."""


def _marked(kind: Kind, name: str, path: str, body: Body, of: str, *also: Any) -> Step:
    """Return a step whose description changes with its body, and with what ``also`` contains."""
    description = mark(of, digest(body, *also))
    return Step(kind, name, Request("POST", path, {**body, "description": description}), description)


def _action(encoder: Encoder, part: str, model: Model) -> Body:
    """Return what a connector sends for one call, and how the answer is read."""
    headers = {"Authorization": "Bearer ${credential.key}", "Content-Type": "application/json"}
    action: Body = {"action_type": "predict", "method": "POST", "headers": headers}
    kind, _, role = part.partition("-")
    if kind == "reranker":
        return action | {
            "url": encoder.url("/opensearch/rerank", model),
            # The query is inserted as the inside of a JSON string.
            "request_body": '{"query": "${parameters.query}", "documents": ${parameters.documents}}',
            "pre_process_function": "connector.pre_process.cohere.rerank",
            "post_process_function": "connector.post_process.cohere.rerank",
        }
    texts = {
        "request_body": '{"inputs": ${parameters.input}}',
        "pre_process_function": "connector.pre_process.default.embedding",
    }
    if kind == DENSE:
        url = encoder.url("/opensearch/dense", model, input_type=role)
        return action | {"url": url} | texts | {"post_process_function": "connector.post_process.default.embedding"}
    # Ids as keys: a token such as "1.5" would be read as a path.
    url = encoder.url("/opensearch/sparse", model, input_type=role, sparse_embedding_format="token_id")
    return action | {"url": url} | texts


def _model_config(part: str, model: Model) -> Body:
    """Return the configuration of a model, without which ``semantic`` fields cannot use it.

    2.19 demands a dimension and a framework for sparse models too.
    """
    is_dense = part.startswith(DENSE)
    return {
        "model_type": "TEXT_EMBEDDING" if is_dense else "SPARSE_ENCODING",
        "framework_type": "SENTENCE_TRANSFORMERS",
        "embedding_dimension": model.dimension,
        **({"additional_config": {"space_type": _SPACES[model.similarity]}} if is_dense else {}),
    }


def _model_of(options: Options, part: str) -> str:
    """Return the reference of a remote model."""
    return f"<{Kind.MODEL} {options.name}-{part}>"


def _ingest_pipeline(options: Options, encoder: Encoder, version: Version) -> Step:
    common: Body = {"batch_size": options.batch}
    if version >= SKIPS_SINCE:
        # A document whose text is unchanged is not encoded again.
        common["skip_existing"] = True
    processors: list[Body] = []
    if encoder.dense is not None:
        model = _model_of(options, "dense-document")
        processors.append({"text_embedding": {"model_id": model, "field_map": {options.text: DENSE}, **common}})
    if encoder.sparse is not None:
        model = _model_of(options, "sparse-document")
        # Pruning would drop weights that the model's own scores have.
        encoding = {"model_id": model, "field_map": {options.text: SPARSE}, "prune_type": "none", **common}
        processors.append({"sparse_encoding": encoding})
    name, description = Names(options.name).ingest, mark(options.name)
    body = {"description": description, "processors": processors}
    return Step(Kind.INGEST, name, Request("PUT", f"/_ingest/pipeline/{name}", body), description)


def _search_pipeline(options: Options, encoder: Encoder, *, is_reranking: bool) -> Step:
    """Return a search pipeline: models of queries by field, fusion, and rerank.

    Rerank has a pipeline of its own, because it refuses searches that do not name their query for it.
    """
    fields = {}
    if encoder.dense is not None:
        fields[DENSE] = _model_of(options, "dense-query")
    if encoder.sparse is not None:
        fields[SPARSE] = _model_of(options, "sparse-query")
    requests: list[Body] = (
        [] if options.is_semantic else [{"neural_query_enricher": {"neural_field_default_id": fields}}]
    )
    if options.is_two_phase:
        requests.append({"neural_sparse_two_phase_processor": {"enabled": True}})
    names, description = Names(options.name), mark(options.name)
    body: Body = {"description": description, "request_processors": requests, **_fusing(options)}
    if is_reranking:
        context = {"document_fields": [options.text]}
        model = _model_of(options, "reranker")
        body["response_processors"] = [{"rerank": {"ml_opensearch": {"model_id": model}, "context": context}}]
    name = names.rerank if is_reranking else names.search
    return Step(Kind.SEARCH, name, Request("PUT", f"/_search/pipeline/{name}", body), description)


def _fusing(options: Options) -> Mapping[str, Any]:
    match options.fusion:
        case Rrf(k=k):
            return rrf_pipeline(k)
        case Weighted(weights, normalise):
            combination = {"technique": "arithmetic_mean", "parameters": {"weights": list(weights)}}
            processor = {"normalization": {"technique": normalise}, "combination": combination}
            return {"phase_results_processors": [{"normalization-processor": processor}]}


def _index(options: Options, encoder: Encoder) -> Step:
    names, description = Names(options.name), mark(options.name)
    index: Body = {"search": {"default_pipeline": names.search}}
    if encoder.dense is not None:
        index["knn"] = True
    if not options.is_semantic:
        index["default_pipeline"] = names.ingest
    meta = {META: {"name": options.name, "description": description}}
    properties = _semantic_field(options, encoder) if options.is_semantic else _fields(options, encoder)
    body = {"settings": {"index": index}, "mappings": {"_meta": meta, "properties": properties}}
    return Step(Kind.INDEX, options.collection, Request("PUT", f"/{options.collection}", body), description)


def _fields(options: Options, encoder: Encoder) -> Body:
    properties: Body = {options.text: {"type": "text"}}
    if encoder.dense is not None:
        properties[DENSE] = {
            "type": "knn_vector",
            "dimension": encoder.dense.dimension,
            "method": {
                "name": "hnsw",
                "engine": "lucene",
                "space_type": _SPACES[encoder.dense.similarity],
                "parameters": {"m": 16, "ef_construction": 100},
            },
        }
    if encoder.sparse is not None:
        properties[SPARSE] = {"type": "rank_features"}
    return properties


def _semantic_field(options: Options, encoder: Encoder) -> Body:
    """Return the field beside which OpenSearch 3.1 stores vectors; it has one model, the dense one if there is one."""
    kind = DENSE if encoder.dense is not None else SPARSE
    field = {
        "type": "semantic",
        "model_id": _model_of(options, f"{kind}-document"),
        "search_model_id": _model_of(options, f"{kind}-query"),
    }
    return {options.text: field}


def search_body(options: Options, encoder: Encoder, query: str, *, size: int = 10) -> Body:
    """Return the body of a search for a text with all legs, and with what rerank needs if there is a reranker."""
    # As in the library's own searches: with Lucene's default, k, one of the nearest ten documents is missed.
    candidates = max(100, options.depth * 3 // 2)
    nearest = {"query_text": query, "k": options.depth, "method_parameters": {"ef_search": candidates}}
    legs: list[Body] = []
    if options.is_semantic:
        legs.append({"neural": {options.text: nearest}})
    else:
        if encoder.dense is not None:
            legs.append({"neural": {DENSE: nearest}})
        if encoder.sparse is not None:
            legs.append({"neural_sparse": {SPARSE: {"query_text": query}}})
    body: Body = {
        "_source": {"excludes": [DENSE, SPARSE]},
        "size": size,
        "query": {"hybrid": {"queries": legs, "pagination_depth": options.depth}},
    }
    if encoder.reranker is not None:
        body["ext"] = {"rerank": {"query_context": {"query_text": query}}}
    return body
