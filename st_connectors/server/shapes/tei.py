"""Text Embeddings Inference 1.9, which Milvus, Vespa, Elasticsearch and ``huggingface_hub.InferenceClient`` call.

Answers are arrays without an object around them. A text that is too long is an error with the status 413, not 422, if
it may not be truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from st_connectors.server.calls import (
    Decode,
    Embed,
    EmbedSparse,
    EmbedTokens,
    Pair,
    Reading,
    Result,
    Scale,
    Score,
    Scores,
    Texts,
    Tokenize,
    TokenLists,
)
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.json_text import shortest
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.fields import Fields, malformed
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import best_first, dense, one, scores, sparse, token_vectors
from st_core.protocols import ModelKind

__all__ = ["ROUTES", "read_rerank"]


def _reading(request: ApiRequest, fields: Fields) -> Reading:
    return Reading(
        role=request.role(),
        prompt_name=fields.text("prompt_name"),
        truncate=fields.flag("truncate"),
        keep_end=fields.choice("truncation_direction", ("Right", "Left")) == "Left",
    )


def _refuse_empty(name: str, inputs: Sequence[object]) -> None:
    if not inputs:
        raise Fault(FaultKind.EMPTY, f"`{name}` cannot be empty", field=name)


def _inputs(fields: Fields) -> tuple[str | tuple[int, ...], ...]:
    inputs = fields.texts_or_ids("inputs")
    _refuse_empty("inputs", inputs)
    return inputs


def read_embed(request: ApiRequest) -> Translation:
    """Read ``/embed``."""
    fields = request.fields
    call = Embed(
        request.model(),
        _inputs(fields),
        _reading(request, fields),
        normalize=fields.flag("normalize", True),
        dimensions=fields.whole("dimensions"),
    )
    return Translation((call,), lambda results: dense(one(results)))


def read_embed_all(request: ApiRequest) -> Translation:
    """Read ``/embed_all``."""
    fields = request.fields
    call = EmbedTokens(request.model(), _inputs(fields), _reading(request, fields))
    return Translation((call,), lambda results: list(token_vectors(one(results))))


def read_embed_sparse(request: ApiRequest) -> Translation:
    """Read ``/embed_sparse``."""
    fields = request.fields
    call = EmbedSparse(request.model(), _inputs(fields), _reading(request, fields))
    return Translation((call,), _write_sparse)


def _write_sparse(results: Sequence[Result]) -> list[list[dict[str, Any]]]:
    return [
        [
            {"index": index, "value": value}
            for index, value in zip(row.indices.tolist(), shortest(row.values), strict=True)
        ]
        for row in sparse(one(results)).matrix.rows()
    ]


def read_rerank(request: ApiRequest) -> Translation:
    """Read ``/rerank`` with ``texts``; Elasticsearch sends ``top_n`` too, and accepts no further keys."""
    fields = request.fields
    texts = tuple(fields.texts("texts"))
    _refuse_empty("texts", texts)
    query = fields.required_text("query")
    is_raw = fields.flag("raw_scores", False)
    call = Score(
        request.model(),
        tuple((query, text) for text in texts),
        _reading(request, fields),
        Scale.RAW if is_raw else Scale.UNIT,
    )
    shown = texts if fields.flag("return_text", False) else None
    return Translation((call,), partial(_write_ranks, shown, fields.whole("top_n")))


def _write_ranks(texts: Sequence[str] | None, top: int | None, results: Sequence[Result]) -> list[dict[str, Any]]:
    ranks = best_first(scores(one(results)), top)
    if texts is None:
        return [{"index": index, "score": score} for index, score in ranks]
    return [{"index": index, "text": texts[index], "score": score} for index, score in ranks]


def read_predict(request: ApiRequest) -> Translation:
    """Read ``/predict``: a pair of texts, or a list of pairs."""
    fields = request.fields
    value = fields.raw("inputs")
    is_single = _is_pair(value)
    pairs = (_pair(value, "inputs"),) if is_single else _pairs(value)
    _refuse_empty("inputs", pairs)
    scale = Scale.RAW if fields.flag("raw_scores", False) else Scale.UNIT
    call = Score(request.model(), pairs, _reading(request, fields), scale, is_ranking=False)
    return Translation((call,), partial(_write_labels, is_single))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _pairs(value: Any) -> tuple[Pair, ...]:
    if not isinstance(value, list):
        raise malformed("inputs", "a pair of texts or a list of pairs", value)
    return tuple(_pair(each, f"inputs[{position}]") for position, each in enumerate(value))


def _pair(value: Any, name: str) -> Pair:
    if not _is_pair(value):
        raise malformed(name, "a pair of texts: the served models score pairs", value)
    first, second = value
    return first, second


def _write_labels(is_single: bool, results: Sequence[Result]) -> list[Any]:
    result = one(results)
    assert isinstance(result, Scores)
    rows = [_labelled(shortest(row), result.labels) for row in result.values]
    return rows[0] if is_single else rows


def _labelled(values: Sequence[float], labels: Sequence[str]) -> list[dict[str, Any]]:
    return [{"score": score, "label": labels[index]} for index, score in best_first(values, None)]


def read_similarity(request: ApiRequest) -> Translation:
    """Read ``/similarity``: one text, and the texts that it is compared with by cosine."""
    fields = request.fields
    inputs = fields.fields("inputs")
    if inputs is None:
        raise malformed("inputs", "an object with source_sentence and sentences", None)
    sentences = inputs.texts("sentences")
    _refuse_empty("sentences", sentences)
    reading = _reading(request, fields.fields("parameters") or Fields({}))
    source = inputs.required_text("source_sentence")
    call = Embed(request.model(), (source, *sentences), reading, normalize=True)
    return Translation((call,), _write_similarity)


def _write_similarity(results: Sequence[Result]) -> Any:
    rows = dense(one(results))
    return np.asarray(rows[1:] @ rows[0], np.float32)


def read_tokenize(request: ApiRequest) -> Translation:
    """Read ``/tokenize``."""
    fields = request.fields
    texts = fields.texts("inputs")
    _refuse_empty("inputs", texts)
    call = Tokenize(
        request.model(), texts, fields.flag("add_special_tokens", True), prompt_name=fields.text("prompt_name")
    )
    return Translation((call,), _write_tokens)


def _write_tokens(results: Sequence[Result]) -> list[list[dict[str, Any]]]:
    result = one(results)
    assert isinstance(result, TokenLists)
    return [
        [
            {"id": token.id, "text": token.text, "special": token.is_special, "start": token.start, "stop": token.stop}
            for token in row
        ]
        for row in result.rows
    ]


def read_decode(request: ApiRequest) -> Translation:
    """Read ``/decode``."""
    fields = request.fields
    ids = fields.id_rows("ids")
    _refuse_empty("ids", ids)
    return Translation((Decode(request.model(), ids, fields.flag("skip_special_tokens", True)),), _write_texts)


def _write_texts(results: Sequence[Result]) -> list[str]:
    result = one(results)
    assert isinstance(result, Texts)
    return list(result.rows)


def read_main(request: ApiRequest) -> Translation:
    """Read ``POST /``, which InferenceClient sends to a base URL: by the fields, then by the kind of the model."""
    fields = request.fields
    if "texts" in fields:
        return read_rerank(request)
    if isinstance(fields.raw("inputs"), dict):
        return read_similarity(request)
    kind = request.kind(request.model())
    readers = {ModelKind.SPARSE: read_embed_sparse, ModelKind.RERANKER: read_predict}
    return readers.get(kind, read_embed)(request) if kind is not None else read_embed(request)


def _route(path: str, read: Any, summary: str, example: Any) -> Route:
    return Route(path, read, always(errors.TEI), summary, example, "TEI")


_TEXT = {"inputs": ["What is near what?"], "truncate": True}

ROUTES = (
    _route("/embed", read_embed, "Dense vectors", _TEXT),
    _route("/embed_all", read_embed_all, "Vectors of all tokens", _TEXT),
    _route("/embed_sparse", read_embed_sparse, "Sparse vectors", _TEXT),
    _route("/predict", read_predict, "Labels of pairs of texts", {"inputs": [["a query", "a document"]]}),
    _route(
        "/similarity",
        read_similarity,
        "Cosines of one text and others",
        {"inputs": {"source_sentence": "a text", "sentences": ["another text"]}},
    ),
    _route("/tokenize", read_tokenize, "Tokens", {"inputs": ["What is near what?"]}),
    _route("/decode", read_decode, "Texts of token ids", {"ids": [[101, 102]]}),
    _route("/", read_main, "The main task of the model", _TEXT),
    _route("/invocations", read_main, "The main task of the model", _TEXT),
)
