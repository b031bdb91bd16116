"""The timed works: each is a number of texts of a kind, passed in one way to one method of a model class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench import texts

__all__ = ["EIGHT_BITS", "NUMPY", "OPENVINO", "TORCH", "WORKS", "Work", "inputs_of", "on_card", "with_texts"]


@dataclass(frozen=True, slots=True)
class Work:
    """A work: ``count`` texts (or pairs) of a kind per round, passed to a ``method`` of a class.

    ``order`` says what is measured. ``floors`` are minimum ratios to sentence-transformers by contender, ``most`` the
    maximum seconds or megabytes. A GPU gets ``card_count`` texts if set.
    """

    title: str
    checkpoint: str
    kind: str
    method: str
    texts: str
    count: int
    order: str = "together"
    floors: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    card_count: int = 0


TORCH, NUMPY = "st_core torch", "st_core numpy"
OPENVINO, EIGHT_BITS = "st_core openvino float32", "st_core openvino int8"
WORKS = {
    "dense": Work(
        "dense documents, MiniLM",
        "minilm",
        "SentenceTransformer",
        "encode",
        "mixed",
        400,
        floors={TORCH: 1.12, OPENVINO: 1.2, EIGHT_BITS: 2.3},
        card_count=8000,
    ),
    "splade": Work(
        "SPLADE documents",
        "splade",
        "SparseEncoder",
        "encode",
        "mixed",
        64,
        floors={TORCH: 1.8, OPENVINO: 2.0, EIGHT_BITS: 5},
        card_count=1000,
    ),
    "pairs": Work(
        "cross-encoder, 100 pairs",
        "cross-encoder",
        "CrossEncoder",
        "predict",
        "pairs",
        100,
        floors={TORCH: 1.3, OPENVINO: 1.45, EIGHT_BITS: 2.8},
    ),
    "query": Work(
        "one short dense query", "minilm", "SentenceTransformer", "encode", "query", 40, "singly", {TORCH: 1.3}
    ),
    "sparse-query": Work(
        "inference-free sparse query",
        "inference-free",
        "SparseEncoder",
        "encode_query",
        "query",
        100,
        "singly",
        {NUMPY: 50},
    ),
    "sparse-queries": Work(
        "inference-free sparse queries in one call",
        "inference-free",
        "SparseEncoder",
        "encode_query",
        "query",
        1000,
    ),
    "static": Work(
        "static model documents", "static", "SentenceTransformer", "encode", "describe", 2000, floors={NUMPY: 3}
    ),
    "splade-memory": Work(
        "SPLADE peak growth, 32 texts of 512 tokens",
        "splade",
        "SparseEncoder",
        "encode",
        "long",
        32,
        "growth",
        most={TORCH: 600, OPENVINO: 400},
    ),
    "start": Work(
        "start to first vector, MiniLM",
        "minilm",
        "SentenceTransformer",
        "encode",
        "query",
        1,
        "start",
        {TORCH: 1 / 0.85},
        {OPENVINO: 1.0},
    ),
    "start-static": Work(
        "start to first vector, built-in",
        "static",
        "SentenceTransformer",
        "encode",
        "query",
        1,
        "start",
        most={NUMPY: 1.0},
    ),
}
"""Works by name; floors and limits are those of a CPU."""


def inputs_of(work: Work, number: int) -> list[Any]:
    """Return a description of a round."""
    if work.texts == "pairs":
        return list(texts.pairs(work.count, number))
    if work.texts == "long":
        return [f"{text} {text}" for text in texts.texts("article", work.count, number)]
    return list(texts.texts(work.texts, work.count, number))


def with_texts(work: Work, kind: str) -> Work:
    """Return the same work on another kind of text, with about as many words and without targets."""
    scale = texts.MEAN[work.texts] / texts.MEAN[kind] if work.texts in texts.MEAN else 1.0
    count = work.count if work.order == "singly" else max(1, round(work.count * scale))
    return replace(work, title=f"{work.title}, {kind}", texts=kind, count=count, floors={}, most={})


def on_card(work: Work) -> Work:
    """Return the same work with enough texts to keep a GPU busy, without targets."""
    return replace(work, count=work.card_count or work.count, floors={}, most={})
