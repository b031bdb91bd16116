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
from st_connectors.server.shapes.routes import Asked, Asking, Route, always
from st_connectors.server.shapes.writing import best_first, dense, one, scores, sparse, token_vectors
from st_core.protocols import ModelKind

__all__ = ["ROUTES", "read_rerank"]


def _reading(asking: Asking, fields: Fields) -> Reading:
    return Reading(
        role=asking.role(),
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


def read_embed(asking: Asking) -> Asked:
    """Read ``/embed``."""
    fields = asking.fields
    call = Embed(
        asking.model(),
        _inputs(fields),
        _reading(asking, fields),
        normalize=fields.flag("normalize", True),
        dimensions=fields.whole("dimensions"),
    )
    return Asked((call,), lambda results: dense(one(results)))


def read_embed_all(asking: Asking) -> Asked:
    """Read ``/embed_all``."""
    fields = asking.fields
    call = EmbedTokens(asking.model(), _inputs(fields), _reading(asking, fields))
    return Asked((call,), lambda results: list(token_vectors(one(results))))


def read_embed_sparse(asking: Asking) -> Asked:
    """Read ``/embed_sparse``."""
    fields = asking.fields
    call = EmbedSparse(asking.model(), _inputs(fields), _reading(asking, fields))
    return Asked((call,), _write_sparse)


def _write_sparse(results: Sequence[Result]) -> list[list[dict[str, Any]]]:
    return [
        [
            {"index": index, "value": value}
            for index, value in zip(row.indices.tolist(), shortest(row.values), strict=True)
        ]
        for row in sparse(one(results)).matrix.rows()
    ]


def read_rerank(asking: Asking) -> Asked:
    """Read ``/rerank`` with ``texts``; Elasticsearch sends ``top_n`` too, and accepts no further keys."""
    fields = asking.fields
    texts = tuple(fields.texts("texts"))
    _refuse_empty("texts", texts)
    query = fields.required_text("query")
    is_raw = fields.flag("raw_scores", False)
    call = Score(
        asking.model(),
        tuple((query, text) for text in texts),
        _reading(asking, fields),
        Scale.RAW if is_raw else Scale.UNIT,
    )
    shown = texts if fields.flag("return_text", False) else None
    return Asked((call,), partial(_write_ranks, shown, fields.whole("top_n")))


def _write_ranks(texts: Sequence[str] | None, top: int | None, results: Sequence[Result]) -> list[dict[str, Any]]:
    ranks = best_first(scores(one(results)), top)
    if texts is None:
        return [{"index": index, "score": score} for index, score in ranks]
    return [{"index": index, "text": texts[index], "score": score} for index, score in ranks]


def read_predict(asking: Asking) -> Asked:
    """Read ``/predict``: a pair of texts, or a list of pairs."""
    fields = asking.fields
    value = fields.raw("inputs")
    is_single = _is_pair(value)
    pairs = (_pair(value, "inputs"),) if is_single else _pairs(value)
    _refuse_empty("inputs", pairs)
    scale = Scale.RAW if fields.flag("raw_scores", False) else Scale.UNIT
    call = Score(asking.model(), pairs, _reading(asking, fields), scale, is_ranking=False)
    return Asked((call,), partial(_write_labels, is_single))


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


def read_similarity(asking: Asking) -> Asked:
    """Read ``/similarity``: one text, and the texts that it is compared with by cosine."""
    fields = asking.fields
    inputs = fields.fields("inputs")
    if inputs is None:
        raise malformed("inputs", "an object with source_sentence and sentences", None)
    sentences = inputs.texts("sentences")
    _refuse_empty("sentences", sentences)
    reading = _reading(asking, fields.fields("parameters") or Fields({}))
    source = inputs.required_text("source_sentence")
    call = Embed(asking.model(), (source, *sentences), reading, normalize=True)
    return Asked((call,), _write_similarity)


def _write_similarity(results: Sequence[Result]) -> Any:
    rows = dense(one(results))
    return np.asarray(rows[1:] @ rows[0], np.float32)


def read_tokenize(asking: Asking) -> Asked:
    """Read ``/tokenize``."""
    fields = asking.fields
    texts = fields.texts("inputs")
    _refuse_empty("inputs", texts)
    call = Tokenize(
        asking.model(), texts, fields.flag("add_special_tokens", True), prompt_name=fields.text("prompt_name")
    )
    return Asked((call,), _write_tokens)


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


def read_decode(asking: Asking) -> Asked:
    """Read ``/decode``."""
    fields = asking.fields
    ids = fields.id_rows("ids")
    _refuse_empty("ids", ids)
    return Asked((Decode(asking.model(), ids, fields.flag("skip_special_tokens", True)),), _write_texts)


def _write_texts(results: Sequence[Result]) -> list[str]:
    result = one(results)
    assert isinstance(result, Texts)
    return list(result.rows)


def read_main(asking: Asking) -> Asked:
    """Read ``POST /``, which InferenceClient sends to a base URL: by the fields, then by the kind of the model."""
    fields = asking.fields
    if "texts" in fields:
        return read_rerank(asking)
    if isinstance(fields.raw("inputs"), dict):
        return read_similarity(asking)
    kind = asking.kind(asking.model())
    readers = {ModelKind.SPARSE: read_embed_sparse, ModelKind.RERANKER: read_predict}
    return readers.get(kind, read_embed)(asking) if kind is not None else read_embed(asking)


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
