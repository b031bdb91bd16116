"""vLLM's ``/score`` and ``/pooling``; its ``/rerank`` is read with that of Jina."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from st_connectors.server.calls import (
    Embed,
    EmbedSparse,
    EmbedTokens,
    Pair,
    Reading,
    Result,
    Scale,
    Score,
    SparseVectors,
    TokenVectors,
)
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.fields import Fields
from st_connectors.server.shapes.openai import texts_of
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import as_base64, dense, one, scores, sparse, token_vectors, usage
from st_core.protocols import ModelKind

__all__ = ["ROUTES"]

_SIDES = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))


def read_score(request: ApiRequest) -> Translation:
    """Read ``/score``: one text with one or many, or as many with as many."""
    fields = request.fields
    left, right = next((names for names in _SIDES if names[0] in fields and names[1] in fields), _SIDES[0])
    pairs = _pairs(fields.texts(left), fields.texts(right), right)
    scale = Scale.RAW if fields.flag("use_activation") is False else Scale.OWN
    call = Score(request.model(), pairs, _reading(request, fields), scale)
    return Translation((call,), partial(_write_scores, request.request_id, request.time))


def _pairs(first: Sequence[str], second: Sequence[str], name: str) -> tuple[Pair, ...]:
    if not first or not second:
        raise Fault(FaultKind.EMPTY, "there is no pair to score", field=name)
    if len(first) not in (1, len(second)):
        raise Fault(FaultKind.INVALID, f"{name}: expected {len(first)} texts, got {len(second)}", field=name)
    repeated = [first[0]] * len(second) if len(first) == 1 else first
    return tuple(zip(repeated, second, strict=True))


def _reading(request: ApiRequest, fields: Fields) -> Reading:
    tokens = fields.whole("truncate_prompt_tokens", least=-1)
    side = fields.choice("truncation_side", ("left", "right"))
    return Reading(role=request.role(), keep_end=side == "left", max_tokens=tokens if tokens and tokens > 0 else None)


def _write_scores(request_id: str, time: int, results: Sequence[Result]) -> dict[str, Any]:
    values = scores(one(results))
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(values)]
    return _answer(request_id, time, data, results)


def _answer(request_id: str, time: int, data: list[Any], results: Sequence[Result]) -> dict[str, Any]:
    return {
        "id": request_id,
        "object": "list",
        "created": time,
        "model": one(results).usage.model,
        "data": data,
        "usage": usage(results),
    }


def read_pooling(request: ApiRequest) -> Translation:
    """Read ``/pooling`` with ``input``: vectors of texts, or of tokens; a sparse vector has all its dimensions."""
    fields = request.fields
    task = fields.choice("task", ("embed", "token_embed")) or "embed"
    model, texts, reading = request.model(), texts_of(fields), _reading(request, fields)
    form = fields.choice("encoding_format", ("float", "base64")) or "float"
    write = partial(_write_pooled, form == "base64", request.request_id, request.time)
    if task == "token_embed":
        return Translation((EmbedTokens(model, texts, reading),), write)
    if request.kind(model) is ModelKind.SPARSE:
        return Translation((EmbedSparse(model, texts, reading),), write)
    return Translation((Embed(model, texts, reading, dimensions=fields.whole("dimensions")),), write)


def _write_pooled(is_base64: bool, request_id: str, time: int, results: Sequence[Result]) -> dict[str, Any]:
    data = [
        {"index": index, "object": "pooling", "data": as_base64(row) if is_base64 else row}
        for index, row in enumerate(_rows(one(results)))
    ]
    return _answer(request_id, time, data, results)


def _rows(result: Result) -> list[Any]:

    match result:
        case SparseVectors():
            return list(sparse(result).matrix.to_dense())
        case TokenVectors():
            return list(token_vectors(result))
        case _:
            return list(dense(result))


_SCORE = {"text_1": "a query", "text_2": ["a document", "another document"]}
_POOLING = {"input": ["a text"], "task": "embed"}

ROUTES = (
    *(
        Route(path, read_score, always(errors.VLLM), "Scores of pairs of texts", _SCORE, "vLLM")
        for path in ("/score", "/v1/score")
    ),
    Route("/pooling", read_pooling, always(errors.VLLM), "Vectors of texts or tokens", _POOLING, "vLLM"),
)
