"""Search among quantised vectors equals brute force and sentence-transformers' scores."""

from __future__ import annotations

import numpy as np
import pytest

from st_core import quantize_embeddings, semantic_search_quantized
from st_core.quantize import quantization_ranges

PRECISIONS = ["int8", "uint8", "binary", "ubinary"]


@pytest.fixture
def vectors():
    """Queries and a corpus of 37 dimensions, which do not fill whole bytes; two vectors of the corpus are equal."""
    random = np.random.default_rng(4)
    corpus = random.normal(size=(500, 37)).astype(np.float32)
    corpus[7] = corpus[3]
    return random.normal(size=(6, 37)).astype(np.float32), corpus


@pytest.mark.parametrize("block", [50, 1 << 22])
@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_codes_are_scored_by_what_they_stand_for(vectors, precision, block, monkeypatch):
    """Each code is the lower end of its step; scores are exact for these values, whatever the block."""
    monkeypatch.setattr("st_core.rescore.BLOCK", block)
    queries, corpus = vectors
    ranges = quantization_ranges(corpus)
    codes = quantize_embeddings(corpus, precision, ranges)
    numbers = codes.astype(np.float64) + (128 if precision == "int8" else 0)
    scores = queries.astype(np.float64) @ (ranges[0] + numbers * (ranges[1] - ranges[0]) / 255).T

    found = semantic_search_quantized(queries, codes, precision, ranges=ranges, top_k=9)

    for row, hits in zip(scores, found, strict=True):
        wanted = np.argsort(-row, kind="stable")[:9]
        assert [hit["corpus_id"] for hit in hits] == wanted.tolist()
        np.testing.assert_allclose([hit["score"] for hit in hits], row[wanted], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", [50, 1 << 22])
@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_the_nearest_bits_are_scored_by_the_float_query(vectors, precision, block, monkeypatch):
    """First by differing bits, of equal ones the earlier; then by the query's sum over the bits that are set."""
    monkeypatch.setattr("st_core.rescore.BLOCK", block)
    queries, corpus = vectors
    codes = quantize_embeddings(corpus, precision)

    found = semantic_search_quantized(queries, codes, precision, top_k=5, rescore_multiplier=3)

    for query, hits in zip(queries, found, strict=True):
        differing = ((query > 0) != (corpus > 0)).sum(axis=1)
        near = np.sort(np.argsort(differing, kind="stable")[:15])
        scores = (corpus[near] > 0) @ query.astype(np.float64)
        wanted = np.argsort(-scores, kind="stable")[:5]
        assert [hit["corpus_id"] for hit in hits] == near[wanted].tolist()
        np.testing.assert_allclose([hit["score"] for hit in hits], scores[wanted], rtol=1e-5, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_codes_stand_for_the_values_of_sentence_transformers(vectors, precision):
    """Its own way back from codes, which it scores candidates by, gives the same scores."""
    pytest.importorskip("sentence_transformers", reason="the oracle")
    from sentence_transformers.util.quantization import _dequantize_embeddings

    queries, corpus = vectors
    ranges = quantization_ranges(corpus)
    codes = quantize_embeddings(corpus, precision, ranges)
    scores = queries @ _dequantize_embeddings(codes, precision, ranges).T

    for row, hits in zip(scores, semantic_search_quantized(queries, codes, precision, ranges=ranges), strict=True):
        np.testing.assert_allclose([hit["score"] for hit in hits], np.sort(row)[::-1][:10], rtol=1e-5, atol=1e-5)


def test_rescoring_finds_what_bits_alone_miss():
    """Among vectors near one another, most of the true neighbours are found with rescoring, fewer without."""
    random = np.random.default_rng(1)
    corpus = random.normal(size=(3000, 64)).astype(np.float32)
    queries = corpus[:40] + random.normal(size=(40, 64)).astype(np.float32) * 0.5
    truth = np.argsort(-(queries @ corpus.T), axis=1)[:, :10]
    codes = quantize_embeddings(corpus, "ubinary")

    def share(multiplier):
        found = semantic_search_quantized(queries, codes, "ubinary", rescore_multiplier=multiplier)
        return np.mean(
            [len({hit["corpus_id"] for hit in hits} & set(row)) for hits, row in zip(found, truth, strict=True)]
        )

    assert share(8) > share(1) + 0.5


def test_few_and_single_vectors(vectors):
    """One query is a batch of one; a corpus smaller than top_k comes whole, an empty one gives nothing."""
    queries, corpus = vectors
    codes = quantize_embeddings(corpus, "ubinary")

    assert semantic_search_quantized(queries[0], codes, "ubinary") == semantic_search_quantized(
        queries[:1], codes, "ubinary"
    )
    assert len(semantic_search_quantized(queries, codes[:3], "ubinary")[0]) == 3
    assert semantic_search_quantized(queries, codes[:0], "ubinary") == [[]] * 6


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"corpus_precision": "int4"}, "int4"),
        ({"corpus_precision": "uint8"}, r"\[m, 37\]"),
        ({"corpus_precision": "binary"}, "int8"),
        ({"query_embeddings": np.zeros((2, 37), np.int8)}, "float queries"),
        ({"top_k": 0}, "top_k"),
        ({"corpus_precision": "int8", "corpus_embeddings": np.zeros((4, 37), np.int8)}, "ranges"),
    ],
)
def test_what_does_not_fit_is_refused(vectors, change, problem):
    """The message says what was expected."""
    queries, corpus = vectors
    asked = {
        "query_embeddings": queries,
        "corpus_embeddings": quantize_embeddings(corpus, "ubinary"),
        "corpus_precision": "ubinary",
    } | change

    with pytest.raises(ValueError, match=problem):
        semantic_search_quantized(**asked)
