"""The requests that make Elasticsearch call an encoder server, without sending any.

They follow the documentation of 8.19 and 9; the licence that they need was not at hand to run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from st_connectors.errors import Unsupported
from st_connectors.schema import Rrf
from st_connectors.setup.encoder import Encoder, Model
from st_connectors.setup.options import DENSE, SPARSE, Options, mark
from st_connectors.setup.requests import KEY, Request

__all__ = ["META", "TASKS", "endpoint_of", "licence_problem", "plan", "search_body"]

Body: TypeAlias = dict[str, Any]

META = "st_connectors_setup"
"""The key in the ``_meta`` of a pipeline or index by which it is recognised."""
TASKS = {"dense": "text_embedding", "sparse": "sparse_embedding", "reranker": "rerank"}
"""The task of the endpoint for each kind of model."""
_LICENCES = ("enterprise", "trial")
_SIMILARITIES = {None: "cosine", "cosine": "cosine", "dot": "dot_product", "euclidean": "l2_norm"}
_FIELD_SIMILARITIES = {**_SIMILARITIES, "dot": "max_inner_product"}
_PARSERS: Mapping[str, Body] = {
    "dense": {"text_embeddings": "$.embeddings[*]"},
    "sparse": {"token_path": "$.embeddings[*][*].token", "weight_path": "$.embeddings[*][*].weight"},
    "reranker": {
        "reranked_index": "$.results[*].index",
        "relevance_score": "$.results[*].relevance_score",
        "document_text": "$.results[*].text",
    },
}


def licence_problem(licence: Mapping[str, Any]) -> str | None:
    """Return a sentence that says why a licence does not permit inference; None if it does."""
    kind, status = licence.get("type"), licence.get("status")
    if kind in _LICENCES and status == "active":
        return None
    found = f"{kind}" if status == "active" else f"{kind}, which is {status}"
    return (
        f"the inference API needs an Enterprise or trial licence, got {found}: nothing was created. Run "
        "`st-connectors gateway` in front of the cluster, which adds vectors without a licence"
    )


def plan(options: Options, encoder: Encoder) -> tuple[Request, ...]:
    """Return the requests in the order in which they are sent; raise Unsupported for what Elasticsearch lacks."""
    if not isinstance(options.fusion, Rrf) or options.fusion.weights is not None or options.is_two_phase:
        message = "expected --fusion rrf or rrf:K, without --two-phase: Elasticsearch is set up for rank fusion only"
        raise Unsupported(message, store="elasticsearch", operation="setup")
    if encoder.dense is not None and encoder.dense.similarity not in _SIMILARITIES:
        message = f"the model {encoder.dense.name} compares by {encoder.dense.similarity}: choose another one"
        raise Unsupported(message, store="elasticsearch", operation="setup")
    endpoints = [_endpoint(options, encoder, kind, model) for kind, model in _models(encoder).items()]
    pipeline = [] if options.is_semantic else [_pipeline(options, encoder)]
    return (*endpoints, *pipeline, _index(options, encoder))


def _models(encoder: Encoder) -> dict[str, Model]:
    models = {"dense": encoder.dense, "sparse": encoder.sparse, "reranker": encoder.reranker}
    return {kind: model for kind, model in models.items() if model is not None}


def endpoint_of(options: Options, kind: str) -> str:
    """Return the id of the inference endpoint for a kind of model."""
    return f"{options.name}-{kind}"


def _endpoint(options: Options, encoder: Encoder, kind: str, model: Model) -> Request:
    settings: Body = {
        "secret_parameters": {"api_key": f"${KEY}" if encoder.has_key else "none"},
        # An object at the root: the parser of "custom" reads no array there.
        "url": encoder.url(f"/elasticsearch/{TASKS[kind]}", model),
        "headers": {"Authorization": "Bearer ${api_key}", "Content-Type": "application/json"},
        "request": _template(kind),
        "response": {"json_parser": dict(_PARSERS[kind])},
    }
    if kind != "reranker":
        settings["batch_size"] = options.batch
        settings["input_type"] = {"translation": {"ingest": "document", "search": "query"}, "default": "document"}
    if kind == "dense":
        settings |= {"dimensions": model.dimension, "similarity": _SIMILARITIES[model.similarity]}
    path = f"/_inference/{TASKS[kind]}/{endpoint_of(options, kind)}"
    return Request("PUT", path, {"service": "custom", "service_settings": settings})


def _template(kind: str) -> str:
    """Return the body of a call; the values of templates are JSON, so that they have no quotes around them."""
    if kind == "reranker":
        return '{"query": ${query}, "documents": ${input}, "return_documents": true}'
    return '{"inputs": ${input}, "input_type": ${input_type}}'


def _meta(options: Options) -> Body:
    return {META: {"name": options.name, "description": mark(options.name)}}


def _pipeline(options: Options, encoder: Encoder) -> Request:
    kinds = [kind for kind in (DENSE, SPARSE) if kind in _models(encoder)]
    processors = [
        {
            "inference": {
                "model_id": endpoint_of(options, kind),
                "input_output": [{"input_field": options.text, "output_field": kind}],
            }
        }
        for kind in kinds
    ]
    body = {"description": mark(options.name), "processors": processors, "_meta": _meta(options)}
    return Request("PUT", f"/_ingest/pipeline/{options.name}-ingest", body)


def _index(options: Options, encoder: Encoder) -> Request:
    models = _models(encoder)
    properties: Body = {}
    if options.is_semantic:
        kind = DENSE if DENSE in models else SPARSE
        properties[options.text] = {"type": "semantic_text", "inference_id": endpoint_of(options, kind)}
    else:
        properties[options.text] = {"type": "text"}
        if (dense := models.get(DENSE)) is not None:
            similarity = _FIELD_SIMILARITIES[dense.similarity]
            properties[DENSE] = {"type": "dense_vector", "dims": dense.dimension, "similarity": similarity}
        if SPARSE in models:
            properties[SPARSE] = {"type": "sparse_vector"}
    settings = {} if options.is_semantic else {"index": {"default_pipeline": f"{options.name}-ingest"}}
    body = {"settings": settings, "mappings": {"_meta": _meta(options), "properties": properties}}
    return Request("PUT", f"/{options.collection}", body)


def search_body(options: Options, encoder: Encoder, query: str, *, size: int = 10) -> Body:
    """Return the body of a search for a text with all legs, reranked if there is a reranker."""
    if options.is_semantic:
        legs: list[Body] = [{"standard": {"query": {"semantic": {"field": options.text, "query": query}}}}]
    else:
        legs = [_leg(options, kind, query) for kind in (DENSE, SPARSE) if kind in _models(encoder)]
    assert isinstance(options.fusion, Rrf)
    fused = {"retrievers": legs, "rank_constant": options.fusion.k, "rank_window_size": options.depth}
    retriever: Body = {"rrf": fused} if len(legs) > 1 else legs[0]
    if encoder.reranker is not None:
        rerank = {
            "retriever": retriever,
            "field": options.text,
            "inference_id": endpoint_of(options, "reranker"),
            "inference_text": query,
            "rank_window_size": options.depth,
        }
        retriever = {"text_similarity_reranker": rerank}
    return {"_source": {"excludes": [DENSE, SPARSE]}, "size": size, "retriever": retriever}


def _leg(options: Options, kind: str, query: str) -> Body:
    endpoint = endpoint_of(options, kind)
    if kind == DENSE:
        builder = {"text_embedding": {"model_id": endpoint, "model_text": query}}
        knn = {"field": DENSE, "k": options.depth, "num_candidates": options.depth, "query_vector_builder": builder}
        return {"knn": knn}
    sparse = {"field": SPARSE, "inference_id": endpoint, "query": query, "prune": False}
    return {"standard": {"query": {"sparse_vector": sparse}}}
