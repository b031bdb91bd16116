"""Weaviate's modules text2vec-transformers and reranker-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from st_connectors.server.calls import Embed, Reading, Result, Role, Score
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.fields import Fields
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import dense, one, scores

__all__ = ["ROUTES", "read_rerank"]

_ROLES = {"query": Role.QUERY, "passage": Role.DOCUMENT}


def read_vectors(request: ApiRequest) -> Translation:
    """Read ``/vectors`` with ``text``, or with ``texts``."""
    fields = request.fields
    config = fields.fields("config") or Fields({})
    reading = Reading(role=_ROLES.get(config.text("task_type") or ""))
    is_batch = "texts" in fields
    texts = fields.texts("texts") if is_batch else (fields.required_text("text"),)
    if not texts:
        raise Fault(FaultKind.EMPTY, "texts cannot be empty", field="texts")
    call = Embed(request.model(), texts, reading, normalize=False, dimensions=config.whole("dimensions"))
    return Translation((call,), _write_vectors if is_batch else partial(_write_vector, texts[0]))


def _write_vectors(results: Sequence[Result]) -> dict[str, Any]:
    rows = dense(one(results))
    return {"vectors": list(rows), "dims": int(rows.shape[1])}


def _write_vector(text: str, results: Sequence[Result]) -> dict[str, Any]:
    row = dense(one(results))[0]
    return {"text": text, "dims": int(row.size), "vector": row}


def read_rerank(request: ApiRequest) -> Translation:
    """Read ``/rerank`` with ``property``; scores come in the order of the documents."""
    fields = request.fields
    query, texts = fields.required_text("query"), fields.texts("documents")
    if not texts:
        raise Fault(FaultKind.EMPTY, "documents cannot be empty", field="documents")
    call = Score(request.model(), tuple((query, text) for text in texts))
    return Translation((call,), partial(_write_scores, query, texts))


def _write_scores(query: str, texts: Sequence[str], results: Sequence[Result]) -> dict[str, Any]:
    values = scores(one(results))
    pairs = [{"document": text, "score": score} for text, score in zip(texts, values, strict=True)]
    return {"query": query, "scores": pairs}


ROUTES = (
    *(
        Route(path, read_vectors, always(errors.PLAIN), "Dense vectors", {"text": "a text"}, "Weaviate")
        for path in ("/vectors", "/vectors/")
    ),
)
