"""OpenSearch's remote models: sparse vectors as objects of weights by tokens, dense vectors, and rerank.

``connector.pre_process.default.embedding`` sends a list of texts. A rerank answers with every document, whatever
``top_n`` is, because ml-commons assigns scores to all of them.
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
from st_connectors.server.shapes.writing import dense, one, scores, sparse, token_weights

__all__ = ["ROUTES"]

_NAMES = ("inputs", "input", "text_docs")


def _fields(request: ApiRequest) -> Fields:
    """Return the fields of a body, which may also be a text or a list of texts."""
    return Fields({"inputs": request.body}) if isinstance(request.body, (str, list)) else request.fields


def _texts(fields: Fields) -> tuple[str, ...]:
    texts = fields.texts(next((name for name in _NAMES if name in fields), _NAMES[0]))
    if not texts:
        raise Fault(FaultKind.EMPTY, "inputs cannot be empty", field="inputs")
    return texts


def read_sparse(request: ApiRequest) -> Translation:
    """Read ``/opensearch/sparse``; ``sparse_embedding_format`` "token_id" chooses ids instead of tokens."""
    fields = _fields(request)
    form = fields.text("sparse_embedding_format") or request.query.get("sparse_embedding_format")
    model = fields.text("model") or request.model_of_query
    call = EmbedSparse(model, _texts(fields), Reading(role=request.role()))
    return Translation((call,), partial(_write_sparse, form == "token_id"))


def _write_sparse(by_id: bool, results: Sequence[Result]) -> list[dict[str, float]]:
    return token_weights(sparse(one(results)), by_id=by_id)


def read_dense(request: ApiRequest) -> Translation:
    """Read ``/opensearch/dense``."""
    fields = _fields(request)
    call = Embed(fields.text("model") or request.model_of_query, _texts(fields), Reading(role=request.role()))
    return Translation((call,), lambda results: dense(one(results)))


def read_rerank(request: ApiRequest) -> Translation:
    """Read ``/opensearch/rerank``."""
    fields = request.fields
    query, texts = fields.required_text("query"), fields.texts("documents")
    if not texts:
        raise Fault(FaultKind.EMPTY, "documents cannot be empty", field="documents")
    return Translation((Score(request.model(), tuple((query, text) for text in texts)),), _write_ranks)


def _write_ranks(results: Sequence[Result]) -> dict[str, Any]:
    return {"results": [{"index": index, "relevance_score": score} for index, score in enumerate(scores(one(results)))]}


_TEXTS = {"inputs": ["a text"]}
_PAIRS = {"query": "a query", "documents": ["a document"]}

ROUTES = (
    Route("/opensearch/sparse", read_sparse, always(errors.PLAIN), "Weights by tokens", _TEXTS, "OpenSearch"),
    Route("/opensearch/dense", read_dense, always(errors.PLAIN), "Dense vectors", _TEXTS, "OpenSearch"),
    Route("/opensearch/rerank", read_rerank, always(errors.PLAIN), "Scores of documents", _PAIRS, "OpenSearch"),
)
