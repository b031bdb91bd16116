"""Elasticsearch's ``custom`` service, whose parser needs an object at the root of an answer.

Its ``hugging_face`` service calls TEI's ``/embed`` and ``/rerank``, and its ``openai`` service ``/v1/embeddings``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from st_connectors.server.calls import Embed, EmbedSparse, Reading, Result, Score
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.fields import Fields
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import best_first, dense, one, scores, sparse, token_weights

__all__ = ["ROUTES"]


def _texts(fields: Fields, *names: str) -> tuple[str, ...]:
    texts = fields.texts(next((name for name in names if name in fields), names[0]))
    if not texts:
        raise Fault(FaultKind.EMPTY, f"{names[0]} cannot be empty", field=names[0])
    return texts


def read_dense(request: ApiRequest) -> Translation:
    """Read ``/elasticsearch/text_embedding``; read with ``text_embeddings: $.embeddings[*]``."""
    fields = request.fields
    call = Embed(request.model(), _texts(fields, "inputs", "input"), Reading(role=request.role()))
    return Translation((call,), lambda results: {"embeddings": list(dense(one(results)))})


def read_sparse(request: ApiRequest) -> Translation:
    """Read ``/elasticsearch/sparse_embedding``; read with ``token_path: $.embeddings[*][*].token``."""
    fields = request.fields
    call = EmbedSparse(request.model(), _texts(fields, "inputs", "input"), Reading(role=request.role()))
    return Translation((call,), _write_sparse)


def _write_sparse(results: Sequence[Result]) -> dict[str, Any]:
    rows = token_weights(sparse(one(results)))
    return {"embeddings": [[{"token": token, "weight": weight} for token, weight in row.items()] for row in rows]}


def read_rerank(request: ApiRequest) -> Translation:
    """Read ``/elasticsearch/rerank``; read with ``reranked_index: $.results[*].index``."""
    fields = request.fields
    query, texts = fields.required_text("query"), _texts(fields, "documents", "inputs", "input")
    call = Score(request.model(), tuple((query, text) for text in texts))
    shown = texts if fields.flag("return_documents", False) else None
    return Translation((call,), partial(_write_ranks, shown, fields.whole("top_n", least=0) or None))


def _write_ranks(texts: Sequence[str] | None, top: int | None, results: Sequence[Result]) -> dict[str, Any]:
    ranks: list[dict[str, Any]] = [
        {"index": index, "relevance_score": score} for index, score in best_first(scores(one(results)), top)
    ]
    return {"results": ranks if texts is None else [rank | {"text": texts[rank["index"]]} for rank in ranks]}


_TEXTS = {"inputs": ["a text"], "input_type": "ingest"}
_PAIRS = {"query": "a query", "documents": ["a document"]}


def _route(task: str, read: Any, summary: str, example: Any) -> Route:
    return Route(f"/elasticsearch/{task}", read, always(errors.PLAIN), summary, example, "Elasticsearch")


ROUTES = (
    _route("text_embedding", read_dense, "Dense vectors", _TEXTS),
    _route("sparse_embedding", read_sparse, "Weights of tokens", _TEXTS),
    _route("rerank", read_rerank, "Documents by relevance", _PAIRS),
)
