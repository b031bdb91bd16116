"""Score pairs of texts by shared words and by the cosine of their vectors, with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from st_core.backends.numpy.sparse import weigh_terms
from st_core.errors import ModelBroken
from st_core.modules.hybrid_score import MAPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.modules.hybrid_score import HybridScore
    from st_core.text.tokens import Tokens
    from st_core.vectors import SparseMatrix

    Floats = NDArray[np.float32]
    Ids = NDArray[np.int32]
    Layer = tuple[Floats, Floats]

__all__ = ["Texts", "distinct_texts", "encode", "lexical", "read_tokens", "score_pairs"]

BATCH_TOKENS = 1024
"""Tokens per batch of texts, whose intermediate values fit into the processor's cache."""

NORM_EPSILON = np.float32(1e-5)
SMALLEST_SUM = np.float32(1e-9)
MASKED = np.float32(-1e9)
"""The value that is added to the attention logits of padding."""


class Texts(NamedTuple):
    """The distinct texts of pairs, and the positions [n] of each pair's query and document among them."""

    queries: list[Ids]
    documents: list[Ids]
    query_of: NDArray[np.intp]
    document_of: NDArray[np.intp]


def score_pairs(module: HybridScore, tokens: Tokens) -> Floats:
    """Return the scores [n, 1] of pairs; a text that occurs in several pairs is computed once."""
    texts = distinct_texts(tokens)
    vectors = encode(module, [*texts.queries, *texts.documents])
    queries, documents = vectors[: len(texts.queries)], vectors[len(texts.queries) :]
    cosine = np.einsum("nd,nd->n", queries[texts.query_of], documents[texts.document_of])
    scores = module.lexical_weight * lexical(module, texts) + module.cosine_weight * cosine + module.bias
    return np.asarray(scores, np.float32)[:, None]


def distinct_texts(tokens: Tokens) -> Texts:
    """Return the texts of pairs without repetitions; raise ModelBroken for single texts."""
    if tokens.types is None:
        raise ModelBroken("the model scores pairs of texts, and got single texts")
    rows = [(ids[types == 0], ids[types == 1]) for ids, types in zip(tokens.ids, tokens.types, strict=True)]
    queries, query_of = _distinct([query for query, _ in rows])
    documents, document_of = _distinct([document for _, document in rows])
    return Texts(queries, documents, query_of, document_of)


def _distinct(rows: Sequence[Ids]) -> tuple[list[Ids], NDArray[np.intp]]:
    """Return the rows without repetitions, and the position of each row among them."""
    known: dict[bytes, int] = {}
    positions = np.array([known.setdefault(row.tobytes(), len(known)) for row in rows], np.intp)
    return [np.frombuffer(key, np.int32) for key in known], positions


def lexical(module: HybridScore, texts: Texts) -> Floats:
    """Return the lexical score of each pair [n], from 0 to ``k1 + 1``; 0 for a query without weights."""
    queries, documents = weigh_terms(module.query, texts.queries), weigh_terms(module.document, texts.documents)
    weight = np.zeros(module.idf.size, np.float32)
    result = np.zeros(len(texts.query_of), np.float32)
    for query in range(len(texts.queries)):
        terms, values = _row(queries, query)
        weight[terms] = values / max(values.sum(dtype=np.float32), SMALLEST_SUM)
        for pair in np.flatnonzero(texts.query_of == query):
            found, saturated = _row(documents, int(texts.document_of[pair]))
            result[pair] = weight[found] @ saturated
        weight[terms] = 0
    return result


def _row(matrix: SparseMatrix, row: int) -> tuple[NDArray[np.uint32], Floats]:
    part = slice(int(matrix.indptr[row]), int(matrix.indptr[row + 1]))
    return matrix.indices[part], matrix.values[part]


def read_tokens(module: HybridScore, text: Ids) -> Ids:
    """Return the tokens of a text that the layers read."""
    return text[module.is_content[text] > 0][: len(module.position)]


def encode(module: HybridScore, texts: Sequence[Ids]) -> Floats:
    """Return the unit vectors [n, d] of texts; zeros for a text without content."""
    rows = [read_tokens(module, text) for text in texts]
    sizes = np.array([row.size for row in rows], np.intp)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    result = np.zeros((len(rows), module.table.shape[1]), np.float32)
    layers = _layers(module)
    start = 0
    while start < len(order):
        count = max(1, BATCH_TOKENS // int(sizes[order[start]]))
        batch = order[start : start + count]
        result[batch] = _encode_batch(module, layers, [rows[index] for index in batch])
        start += count
    return result


def _layers(module: HybridScore) -> list[tuple[Layer, ...]]:
    """Return the four maps of each layer, each as its transposed matrix [in, out] and its bias [out]."""
    maps = []
    for name in MAPS:
        weight, bias = module.linear(name)
        maps.append(zip(weight.transpose(0, 2, 1), bias, strict=True))
    return list(zip(*maps, strict=True))


def _encode_batch(module: HybridScore, layers: Sequence[tuple[Layer, ...]], rows: Sequence[Ids]) -> Floats:
    """Return the unit vectors [n, d] of texts in descending order of length."""
    length, width = rows[0].size, module.table.shape[1]
    ids = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        ids[index, : row.size] = row
    is_token = np.arange(length) < np.array([[row.size] for row in rows])
    states = module.table[ids] * module.scale[ids][..., None] + module.position[:length]
    states = states.reshape(-1, width)
    bias = None if is_token.all() else np.where(is_token, np.float32(0), MASKED)[:, None, None, :]
    for query_key_value, attention_output, intermediate, output in layers:
        values = _linear(_normalized(states), query_key_value)
        states += _linear(_attend(values.reshape(len(rows), length, 3, module.heads, -1), bias), attention_output)
        values = _linear(_normalized(states), intermediate)
        states += _linear(np.maximum(values, 0, out=values), output)
    sums = np.einsum("nt,ntd->nd", is_token.astype(np.float32), states.reshape(len(rows), length, width))
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), SMALLEST_SUM), np.float32)


def _linear(states: Floats, layer: Layer) -> Floats:
    matrix, bias = layer
    result: Floats = states @ matrix
    result += bias
    return result


def _normalized(states: Floats) -> Floats:
    """Return rows [n, d] with mean 0 and variance 1."""
    centred: Floats = states - states.mean(axis=1, keepdims=True)
    variance = np.einsum("nd,nd->n", centred, centred) / np.float32(states.shape[1])
    centred /= np.sqrt(variance + NORM_EPSILON)[:, None]
    return centred


def _attend(values: Floats, bias: Floats | None) -> Floats:
    """Return the attended values [n * t, a] for queries, keys and values [n, t, 3, heads, a / heads].

    ``bias`` [n, 1, 1, t] is added to the logits.
    """
    query, key, value = values.transpose(2, 0, 3, 1, 4)
    weights = query @ key.transpose(0, 1, 3, 2)
    if bias is not None:
        weights += bias
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    attended: Floats = weights @ value
    attended /= weights.sum(axis=-1)[..., None]
    count, heads, length, part = attended.shape
    return attended.transpose(0, 2, 1, 3).reshape(count * length, heads * part)
