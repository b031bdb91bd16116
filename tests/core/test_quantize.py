"""Vectors of fewer bits: the formulas by hand, and bit for bit those of sentence-transformers."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from st_core.quantize import quantization_ranges, quantize_embeddings

VECTORS = np.random.default_rng(0).normal(size=(150, 19)).astype(np.float32)
PRECISIONS = ["float32", "int8", "uint8", "binary", "ubinary"]


def test_bytes_are_the_steps_of_the_range():
    """255 steps from least to greatest; what lies outside is clipped; int8 is 128 less."""
    ranges = np.array([[0.0, -1.0], [2.55, 1.0]], np.float32)
    vectors = np.array([[0.0, -1.0], [1.008, 0.001], [9.0, -9.0]], np.float32)

    steps = quantize_embeddings(vectors, "uint8", ranges=ranges)

    assert steps.tolist() == [[0, 0], [100, 127], [255, 0]]
    assert quantize_embeddings(vectors, "int8", ranges=ranges).tolist() == [[-128, -128], [-28, -1], [127, -128]]


def test_bits_are_the_signs():
    """Eight to a byte, the first dimension highest; the last byte is filled with zeros; zero is not positive."""
    vectors = np.array([[1, -1, 0, 2, 3, -4, 5, 6, 7, -8]], np.float32)

    assert quantize_embeddings(vectors, "ubinary").tolist() == [[0b10011011, 0b10000000]]
    assert quantize_embeddings(vectors, "binary").tolist() == [[0b10011011 - 128, 0]]


def test_a_dimension_without_spread_is_zero():
    """Where least and greatest are one, no division by zero."""
    assert quantize_embeddings(np.ones((3, 2), np.float32), "uint8").tolist() == [[0, 0]] * 3


def test_calibration_beats_the_vectors_and_ranges_beat_calibration():
    """The result does not depend on what is quantized along with a vector."""
    calibration = VECTORS * 2
    ranges = quantization_ranges(calibration)

    by_calibration = quantize_embeddings(VECTORS, "int8", calibration_embeddings=calibration)
    alone = quantize_embeddings(VECTORS[3], "int8", ranges=ranges)

    np.testing.assert_array_equal(alone, by_calibration[3])
    np.testing.assert_array_equal(
        quantize_embeddings(VECTORS, "int8", ranges=ranges, calibration_embeddings=VECTORS), by_calibration
    )


@pytest.mark.parametrize("vector", [VECTORS[0], VECTORS[:1]], ids=["lone", "batch"])
def test_one_vector_has_no_range(vector):
    """The message says what to give."""
    with pytest.raises(ValueError, match="calibration_embeddings"):
        quantize_embeddings(vector, "int8")


def test_few_vectors_are_a_poor_guide(caplog):
    """Ranges from fewer than a hundred vectors are warned about, from more they are not."""
    with caplog.at_level(logging.WARNING, logger="st_core.quantize"):
        quantize_embeddings(VECTORS, "int8")
        assert not caplog.records
        quantize_embeddings(VECTORS[:20], "int8")
    assert "20 vectors" in caplog.text


def test_what_cannot_be_quantized_is_refused():
    """Quantized vectors and unknown precisions."""
    with pytest.raises(TypeError, match="int8"):
        quantize_embeddings(VECTORS.astype(np.int8), "int8")
    with pytest.raises(ValueError, match="ubinary"):
        quantize_embeddings(VECTORS, "int4")


def test_nothing_stays_nothing():
    """An empty matrix keeps its width, an empty list is an empty list."""
    empty = np.empty((0, 19), np.float32)

    assert quantize_embeddings(empty, "int8").shape == (0, 19)
    assert quantize_embeddings(empty, "ubinary").shape == (0, 3)
    assert quantize_embeddings([], "int8") == []


@pytest.mark.torch
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", ["array", "float64", "tensor", "bfloat16", "rows", "matrices"])
def test_the_oracle_gives_the_same_bytes(form, precision):
    """Arrays, tensors, lists of vectors and lists of matrices, which share their ranges."""
    import torch
    from sentence_transformers import quantize_embeddings as oracle

    vectors = {
        "array": VECTORS,
        "float64": VECTORS.astype(np.float64),
        "tensor": torch.from_numpy(VECTORS),
        "bfloat16": torch.from_numpy(VECTORS).bfloat16(),
        "rows": list(torch.from_numpy(VECTORS)),
        "matrices": [VECTORS[:40], VECTORS[40:40], VECTORS[40:]],
    }[form]

    mine, wanted = quantize_embeddings(vectors, precision), oracle(vectors, precision)

    assert isinstance(mine, list) is isinstance(wanted, list)
    for got, expected in zip(mine, wanted, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
