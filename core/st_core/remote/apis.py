"""The APIs of servers: pure functions from texts and options to requests, and from answers to arrays."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelUnsupported
from st_core.vectors import SparseMatrix, SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Api",
    "ApiCall",
    "Options",
    "dense_request",
    "dense_rows",
    "rerank_request",
    "score_request",
    "scores_of",
    "sparse_request",
    "sparse_rows",
]


class Api(StrEnum):
    """The API of a server."""

    OWN = "st-connectors"
    TEI = "tei"
    OPENAI = "openai"
    COHERE = "cohere"


@dataclass(frozen=True, slots=True)
class ApiCall:
    """The path and the JSON body of a request."""

    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What a call requests of the vectors: the role of the texts, a prompt, and the width and scale of vectors."""

    role: str | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    normalize: bool = False
    dimensions: int | None = None
    max_active_dims: int | None = None


_COHERE_ROLES = {"query": "search_query", "document": "search_document", None: "search_document"}


def dense_request(api: Api, model: str | None, texts: Sequence[str], options: Options) -> ApiCall:
    """Return the request for dense vectors."""
    match api:
        case Api.OWN:
            return _own_request(model, texts, options)
        case Api.TEI:
            body = {"inputs": list(texts), "normalize": options.normalize, "truncate": True}
            return ApiCall("/embed", _with(body, prompt_name=options.prompt_name, dimensions=options.dimensions))
        case Api.OPENAI:
            body = {"input": list(texts), "model": model or "", "encoding_format": "base64"}
            return ApiCall("/v1/embeddings", _with(body, dimensions=options.dimensions))
        case Api.COHERE:
            body = {"texts": list(texts), "model": model or "", "embedding_types": ["float"]}
            body["input_type"] = _COHERE_ROLES[options.role]
            return ApiCall("/v2/embed", _with(body, output_dimension=options.dimensions))


def sparse_request(api: Api, model: str | None, texts: Sequence[str], options: Options) -> ApiCall:
    """Return the request for sparse vectors; raise ModelUnsupported for an API without them."""
    match api:
        case Api.OWN:
            return _own_request(model, texts, options)
        case Api.TEI:
            body = {"inputs": list(texts), "truncate": True}
            return ApiCall("/embed_sparse", _with(body, prompt_name=options.prompt_name))
        case _:
            raise ModelUnsupported(f"the API {api.value} has no sparse vectors; expected st-connectors or tei")


def _own_request(model: str | None, texts: Sequence[str], options: Options) -> ApiCall:
    body = {"inputs": list(texts), "encoding_format": "base64", "truncate": True, "normalize": options.normalize}
    return ApiCall(
        "/v1/encode",
        _with(
            body,
            model=model,
            role=options.role,
            prompt_name=options.prompt_name,
            prompt=options.prompt,
            dimensions=options.dimensions,
            max_active_dims=options.max_active_dims,
        ),
    )


def _with(body: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    """Return a body with the optional fields that are set."""
    return {**body, **{name: value for name, value in optional.items() if value is not None}}


def dense_rows(api: Api, answer: Any) -> NDArray[np.float32]:
    """Return the vectors of an answer, float32 [n, d]."""
    match api:
        case Api.OWN:
            rows = [_from_base64(row) for row in _only(answer["models"])["vectors"]]
        case Api.TEI:
            rows = answer
        case Api.OPENAI:
            ordered = sorted(answer["data"], key=lambda each: int(each["index"]))
            rows = [each["embedding"] for each in ordered]
            rows = [_from_base64(row) if isinstance(row, str) else row for row in rows]
        case Api.COHERE:
            rows = answer["embeddings"]["float"]
    return np.asarray(rows, np.float32)


def _only(models: Mapping[str, Any]) -> Any:
    [found] = models.values()
    return found


def _from_base64(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


def sparse_rows(api: Api, answer: Any, width: int | None) -> SparseMatrix:
    """Return the vectors of an answer; ``width`` is the number of dimensions where the answer does not have it."""
    if api is Api.OWN:
        found = _only(answer["models"])
        rows = [SparseVector.from_arrays(each["indices"], each["values"]) for each in found["vectors"]]
        return SparseMatrix.from_rows(rows, int(found["dimension"]))
    rows = [SparseVector.from_mapping({each["index"]: each["value"] for each in row}) for row in answer]
    highest = max((int(row.indices[-1]) + 1 for row in rows if len(row)), default=1)
    return SparseMatrix.from_rows(rows, highest if width is None else width)


def score_request(model: str | None, pairs: Sequence[tuple[str, str]]) -> ApiCall:
    """Return the request for the scores of pairs by a server of our own."""
    return ApiCall("/v1/predict", _with({"inputs": [list(pair) for pair in pairs], "truncate": True}, model=model))


def rerank_request(api: Api, model: str | None, query: str, documents: Sequence[str]) -> ApiCall:
    """Return the request for the scores of documents; raise ModelUnsupported for an API without them."""
    match api:
        case Api.TEI:
            return ApiCall("/rerank", {"query": query, "texts": list(documents), "truncate": True})
        case Api.COHERE:
            return ApiCall("/v2/rerank", {"query": query, "documents": list(documents), "model": model or ""})
        case _:
            raise ModelUnsupported(f"the API {api.value} has no rerank; expected st-connectors, tei or cohere")


def scores_of(ranks: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Return the scores of a rerank in the order of the documents, float32 [n]; NaN for a missing one."""
    scores = np.full(len(ranks), np.nan, np.float32)
    for rank in ranks:
        scores[rank["index"]] = rank.get("score", rank.get("relevance_score"))
    return scores
