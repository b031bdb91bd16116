"""All routes, and the paths that several protocols share, which the fields of a request tell apart."""

from __future__ import annotations

from functools import partial
from typing import Any

from st_connectors.server.shapes import (
    cohere,
    elasticsearch,
    errors,
    jina,
    ollama,
    openai,
    opensearch,
    own,
    qdrant,
    tei,
    vllm,
    weaviate,
)
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation

__all__ = ["ROUTES"]


def read_embeddings(request: ApiRequest) -> Translation:
    """Read ``/v1/embeddings`` of OpenAI, TEI, vLLM or Jina."""
    return jina.read_embeddings(request) if jina.is_jina(request.body) else openai.read_embeddings(request)


def _style_of_embeddings(body: Any) -> errors.Style:
    return errors.JINA if jina.is_jina(body) else errors.OPENAI


def read_rerank(request: ApiRequest) -> Translation:
    """Read ``/rerank``: ``texts`` is TEI's, ``property`` Weaviate's, ``documents`` that of Cohere, Jina and vLLM."""
    fields = request.fields
    if "texts" in fields or "documents" not in fields:
        return tei.read_rerank(request)
    return weaviate.read_rerank(request) if "property" in fields else jina.read_rerank(request)


def _style_of_rerank(body: Any) -> errors.Style:
    if not isinstance(body, dict) or "documents" not in body:
        return errors.TEI
    return errors.PLAIN if "property" in body else errors.UNION


def _style_of_union(_body: Any) -> errors.Style:
    return errors.UNION


_PAIRS = {"query": "a query", "documents": ["a document"], "top_n": 1}
_TEXTS = {"input": ["a text"], "model": "dense"}

ROUTES: tuple[Route, ...] = (
    *tei.ROUTES,
    *(
        Route(path, read_embeddings, _style_of_embeddings, "Vectors", _TEXTS, "OpenAI and Jina")
        for path in ("/v1/embeddings", "/embeddings")
    ),
    Route("/rerank", read_rerank, _style_of_rerank, "Documents by relevance", _PAIRS, "TEI, Jina, vLLM, Weaviate"),
    Route(
        "/v1/rerank", partial(jina.read_rerank), _style_of_union, "Documents by relevance", _PAIRS, "Cohere, Jina, vLLM"
    ),
    *cohere.ROUTES,
    *vllm.ROUTES,
    *ollama.ROUTES,
    *opensearch.ROUTES,
    *elasticsearch.ROUTES,
    *qdrant.ROUTES,
    *weaviate.ROUTES,
    *own.ROUTES,
)
