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
from st_connectors.server.shapes.routes import Asked, Asking, Route

__all__ = ["ROUTES"]


def read_embeddings(asking: Asking) -> Asked:
    """Read ``/v1/embeddings`` of OpenAI, TEI, vLLM or Jina."""
    return jina.read_embeddings(asking) if jina.is_jina(asking.body) else openai.read_embeddings(asking)


def _style_of_embeddings(body: Any) -> errors.Style:
    return errors.JINA if jina.is_jina(body) else errors.OPENAI


def read_rerank(asking: Asking) -> Asked:
    """Read ``/rerank``: ``texts`` is TEI's, ``property`` Weaviate's, ``documents`` that of Cohere, Jina and vLLM."""
    fields = asking.fields
    if "texts" in fields or "documents" not in fields:
        return tei.read_rerank(asking)
    return weaviate.read_rerank(asking) if "property" in fields else jina.read_rerank(asking)


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
