"""Jina's embeddings and rerank; the requests have the same paths as those of OpenAI and vLLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.server.calls import Embed, EmbedSparse, EmbedTokens, Reading, Result, Scale, Score
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.shapes.fields import Fields, malformed
from st_connectors.server.shapes.routes import ApiRequest, Translation
from st_connectors.server.shapes.writing import (
    as_base64,
    best_first,
    dense,
    one,
    packed,
    scores,
    sparse,
    token_vectors,
    token_weights,
    total_tokens,
    usage,
)
from st_core.protocols import ModelKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["is_jina", "read_embeddings", "read_rerank", "text_of"]

_OWN = ("task", "normalized", "embedding_type", "late_chunking", "return_multivector")
"""Fields that only Jina's clients send."""


def is_jina(body: object) -> bool:
    """Return whether a request for embeddings or a rerank has a field, or an input, that only Jina's API has."""
    if not isinstance(body, dict):
        return False
    inputs = body.get("input")
    first = inputs[0] if isinstance(inputs, list) and inputs else inputs
    return isinstance(first, dict) or any(body.get(name) is not None for name in _OWN)


def text_of(value: object, name: str) -> str:
    """Return a text, or the text of ``{"text": "…"}``; raise Fault for an image and for another value."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        text: str = value["text"]
        return text
    raise malformed(name, 'a text or {"text": …}; the served models read texts only', value)


def _texts(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("input")
    values = value if isinstance(value, list) else [value]
    texts = tuple(text_of(each, f"input[{position}]") for position, each in enumerate(values))
    if not texts:
        raise Fault(FaultKind.EMPTY, "input cannot be empty", field="input")
    return texts


def read_embeddings(request: ApiRequest) -> Translation:
    """Read ``/v1/embeddings`` with a field of Jina's."""
    fields = request.fields
    model, texts = request.model(), _texts(fields)
    reading = Reading(role=request.role(), truncate=fields.flag("truncate", False))
    if request.kind(model) is ModelKind.SPARSE:
        return Translation((EmbedSparse(model, texts, reading),), _write_sparse)
    if fields.flag("return_multivector", False):
        return Translation((EmbedTokens(model, texts, reading),), _write_multi)
    if fields.flag("late_chunking", False):
        raise Fault(FaultKind.INVALID, "late_chunking is not supported", field="late_chunking")
    call = Embed(
        model, texts, reading, normalize=fields.flag("normalized", True), dimensions=fields.whole("dimensions")
    )
    return Translation((call,), partial(_write_dense, _types(fields)))


def _types(fields: Fields) -> tuple[str, ...]:
    """Return the types of vectors that a request asks for."""
    value = fields.raw("embedding_type")
    names = value if isinstance(value, list) else ["float" if value is None else value]
    unknown = [name for name in names if not isinstance(name, str) or name not in _FORMS]
    if unknown or not names:
        raise Fault(
            FaultKind.INVALID,
            f"embedding_type: unknown type; expected one of {', '.join(_FORMS)}",
            field="embedding_type",
        )
    return tuple(names)


_FORMS: Mapping[str, Callable[[NDArray[np.float32]], Any]] = {
    "float": lambda row: row,
    "base64": as_base64,
    "binary": lambda row: packed(row, signed=True),
    "ubinary": lambda row: packed(row, signed=False),
}


def _write_dense(types: Sequence[str], results: Sequence[Result]) -> dict[str, Any]:
    rows = list(dense(one(results)))
    forms: list[Any] = [{name: _FORMS[name](row) for name in types} for row in rows]
    return _answer([each[types[0]] for each in forms] if len(types) == 1 else forms, results)


def _write_multi(results: Sequence[Result]) -> dict[str, Any]:
    data = [
        {"object": "embeddings", "index": index, "embeddings": rows}
        for index, rows in enumerate(token_vectors(one(results)))
    ]
    return {"model": one(results).usage.model, "object": "list", "usage": usage(results), "data": data}


def _write_sparse(results: Sequence[Result]) -> dict[str, Any]:
    answer = _answer(token_weights(sparse(one(results))), results)
    tokens = total_tokens(results)
    return answer | {"usage": {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}}


def _answer(embeddings: Sequence[Any], results: Sequence[Result]) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": embedding} for index, embedding in enumerate(embeddings)
    ]
    return {"model": one(results).usage.model, "object": "list", "usage": usage(results), "data": data}


def read_rerank(request: ApiRequest, *, returns_documents: bool = True) -> Translation:
    """Read a rerank with ``documents``, of Cohere v1, Jina and vLLM; each client ignores the fields of the others."""
    fields = request.fields
    texts = tuple(_document(each, position) for position, each in enumerate(fields.items("documents")))
    if not texts:
        raise Fault(FaultKind.EMPTY, "documents cannot be empty", field="documents")
    query = text_of(fields.raw("query"), "query")
    scale = Scale.RAW if fields.flag("use_activation") is False else Scale.UNIT
    reading = Reading(truncate=fields.flag("truncation"))
    call = Score(request.model(), tuple((query, text) for text in texts), reading, scale)
    shown = texts if fields.flag("return_documents", returns_documents) else None
    top = fields.whole("top_n", least=0) or None
    return Translation((call,), partial(_write_ranks, shown, top, request.request_id))


def _document(value: object, position: int) -> str:
    return text_of(value, f"documents[{position}]")


def _write_ranks(
    texts: Sequence[str] | None, top: int | None, request_id: str, results: Sequence[Result]
) -> dict[str, Any]:
    ranks: list[dict[str, Any]] = [
        {"index": index, "relevance_score": score} for index, score in best_first(scores(one(results)), top)
    ]
    if texts is not None:
        ranks = [rank | {"document": {"text": texts[rank["index"]]}} for rank in ranks]
    return {
        "id": request_id,
        "object": "list",
        "model": one(results).usage.model,
        "usage": usage(results),
        "results": ranks,
    }
