"""The server's own routes: everything that a batch can give in one call, and the scores of pairs.

``st_core.remote`` calls them. The vectors are those of ``encode``, ``encode_query`` and ``encode_document``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from st_connectors.server.calls import (
    Call,
    Embed,
    EmbedSparse,
    Pair,
    Reading,
    Result,
    Role,
    Scale,
    Score,
    Scores,
    SparseVectors,
)
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.json_text import shortest
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.fields import Fields, malformed
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import as_base64, dense, one
from st_core.protocols import ModelKind

__all__ = ["ROUTES"]


def read_encode(request: ApiRequest) -> Translation:
    """Read ``/v1/encode``: the vectors of one or several models for the same texts."""
    fields = request.fields
    texts = fields.texts("inputs")
    models = _models(request, fields)
    reading = _reading(fields)
    calls = tuple(_call(request, name, texts, reading, fields) for name in models)
    is_base64 = fields.choice("encoding_format", ("float", "base64")) == "base64"
    return Translation(calls, partial(_write_encoded, is_base64, fields.flag("tokens", False)))


def _models(request: ApiRequest, fields: Fields) -> tuple[str, ...]:
    """Return the models that a request names; without names, all dense and sparse ones."""
    named = fields.texts("models") if "models" in fields else tuple(filter(None, [request.model()]))
    models = named or tuple(name for name in request.names if request.catalog[name] is not ModelKind.RERANKER)
    if not models:
        raise Fault(FaultKind.WRONG_KIND, "no dense and no sparse model is served", field="models")
    return tuple(dict.fromkeys(models))


def _reading(fields: Fields) -> Reading:
    role = fields.choice("role", ("query", "document"))
    return Reading(
        role=None if role is None else Role(role),
        prompt_name=fields.text("prompt_name"),
        prompt=fields.text("prompt"),
        truncate=fields.flag("truncate"),
        keep_end=fields.choice("truncation_direction", ("Right", "Left")) == "Left",
        max_tokens=fields.whole("max_tokens"),
    )


def _call(request: ApiRequest, model: str, texts: tuple[str, ...], reading: Reading, fields: Fields) -> Call:
    if request.kind(model) is ModelKind.SPARSE:
        return EmbedSparse(model, texts, reading, fields.whole("max_active_dims"))
    normalize = fields.flag("normalize", False)
    return Embed(model, texts, reading, normalize=normalize, dimensions=fields.whole("dimensions"))


def _write_encoded(is_base64: bool, with_tokens: bool, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "models": {result.usage.model: _encoded(result, is_base64, with_tokens) for result in results},
        "usage": {"total_tokens": sum(result.usage.total for result in results)},
    }


def _encoded(result: Result, is_base64: bool, with_tokens: bool) -> dict[str, Any]:
    usage = {"tokens": result.usage.tokens, "truncated": result.usage.is_truncated.tolist()}
    if isinstance(result, SparseVectors):
        rows = [{"indices": row.indices.tolist(), "values": shortest(row.values)} for row in result.matrix.rows()]
        names = [[result.tokens[index] for index in row["indices"]] for row in rows] if with_tokens else None
        named = rows if names is None else [row | {"names": each} for row, each in zip(rows, names, strict=True)]
        return {"kind": "sparse", "dimension": result.matrix.shape[1], "vectors": named, **usage}
    vectors = dense(result)
    return {
        "kind": "dense",
        "dimension": int(vectors.shape[1]),
        "vectors": [as_base64(row) for row in vectors] if is_base64 else list(vectors),
        **usage,
    }


def read_predict(request: ApiRequest) -> Translation:
    """Read ``/v1/predict``: the scores of pairs, after the model's own activation unless ``scale`` says otherwise."""
    fields = request.fields
    pairs = tuple(_pair(each, f"inputs[{position}]") for position, each in enumerate(fields.items("inputs")))
    scale = fields.choice("scale", [each.value for each in Scale]) or Scale.OWN
    call = Score(request.model(), pairs, _reading(fields), Scale(scale), is_ranking=False)
    return Translation((call,), _write_scores)


def _pair(value: Any, name: str) -> Pair:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)):
        raise malformed(name, "a pair of texts", value)
    first, second = value
    return first, second


def _write_scores(results: Sequence[Result]) -> dict[str, Any]:
    result = one(results)
    assert isinstance(result, Scores)
    return {
        "model": result.usage.model,
        "labels": list(result.labels),
        "scores": result.values,
        "tokens": result.usage.tokens,
        "truncated": result.usage.is_truncated.tolist(),
    }


ROUTES = (
    Route(
        "/v1/encode",
        read_encode,
        always(errors.PLAIN),
        "Vectors of several models",
        {"inputs": ["a text"], "role": "document"},
        "st-connectors",
    ),
    Route(
        "/v1/predict",
        read_predict,
        always(errors.PLAIN),
        "Scores of pairs of texts",
        {"inputs": [["a query", "a document"]]},
        "st-connectors",
    ),
)
