"""OpenAI's embeddings and list of models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from st_connectors.server.calls import Embed, EmbedSparse, Reading, Result
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.shapes.fields import Fields
from st_connectors.server.shapes.routes import ApiRequest, Catalog, Translation
from st_connectors.server.shapes.writing import as_base64, dense, one, sparse, token_weights, usage
from st_core.protocols import ModelKind

__all__ = ["models", "read_embeddings", "texts_of"]


def texts_of(fields: Fields) -> tuple[str, ...]:
    """Return the texts of ``input``; raise Fault for token ids, for no text and for an empty text."""
    inputs = fields.texts_or_ids("input")
    texts = tuple(each for each in inputs if isinstance(each, str))
    if len(texts) < len(inputs):
        raise Fault(
            FaultKind.INVALID,
            "input contains token ids, which are those of another tokenizer; expected texts: LangChain's "
            "OpenAIEmbeddings sends texts with check_embedding_ctx_length=False",
            field="input",
        )
    if not texts or not all(texts):
        raise Fault(FaultKind.EMPTY, "input cannot be empty, nor contain an empty text", field="input")
    return texts


def read_embeddings(request: ApiRequest) -> Translation:
    """Read ``/v1/embeddings``; a sparse model answers with an object of weights by tokens for each text."""
    fields = request.fields
    model, texts, reading = request.model(), texts_of(fields), Reading(role=request.role())
    is_base64 = fields.choice("encoding_format", ("float", "base64")) == "base64"
    dimensions = fields.whole("dimensions")
    if request.kind(model) is ModelKind.SPARSE:
        return Translation((EmbedSparse(model, texts, reading),), _write_sparse)
    return Translation((Embed(model, texts, reading, dimensions=dimensions),), partial(_write_dense, is_base64))


def _write_dense(is_base64: bool, results: Sequence[Result]) -> dict[str, Any]:
    rows = dense(one(results))
    return _answer([as_base64(row) for row in rows] if is_base64 else list(rows), results)


def _write_sparse(results: Sequence[Result]) -> dict[str, Any]:
    return _answer(token_weights(sparse(one(results))), results)


def _answer(embeddings: Sequence[Any], results: Sequence[Result]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index, embedding in enumerate(embeddings)
        ],
        "model": one(results).usage.model,
        "usage": usage(results),
    }


def models(catalog: Catalog, created: int) -> dict[str, Any]:
    """Return the answer of ``/v1/models``."""
    return {"object": "list", "data": [model(name, created) for name in catalog]}


def model(name: str, created: int) -> dict[str, Any]:
    """Return the entry of one model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "st-connectors"}
