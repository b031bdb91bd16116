"""fastembed 0.9 models with sentence-transformers' method names, read from a folder of ``bench.checkpoints``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["CrossEncoder", "SentenceTransformer", "SparseEncoder"]

NAME = "bench/local"
SPLADE = "prithivida/Splade_PP_en_v1"
"""fastembed selects SPLADE models by this name; with a folder, it reads nothing of the named model."""


class SentenceTransformer:
    """A dense model with mean pooling and unit vectors, like MiniLM."""

    def __init__(self, folder: str) -> None:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        TextEmbedding.add_custom_model(
            NAME, PoolingType.MEAN, normalization=True, sources=ModelSource(hf=NAME), dim=384, model_file="model.onnx"
        )
        self._model = TextEmbedding(NAME, specific_model_path=folder)

    def encode(self, inputs: str | Sequence[str], batch_size: int = 256) -> Any:
        """Return one vector for a text, a matrix for several."""
        if isinstance(inputs, str):
            return next(iter(self._model.embed(inputs)))
        return np.stack(list(self._model.embed(inputs, batch_size)))


class SparseEncoder:
    """A SPLADE model."""

    def __init__(self, folder: str) -> None:
        from fastembed import SparseTextEmbedding

        self._model = SparseTextEmbedding(SPLADE, specific_model_path=folder)

    def encode(self, inputs: Sequence[str], batch_size: int = 256) -> Any:
        """Return a list of fastembed's sparse vectors."""
        return list(self._model.embed(inputs, batch_size))


class CrossEncoder:
    """A reranker with one label, whose scores a sigmoid maps between 0 and 1."""

    def __init__(self, folder: str) -> None:
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        TextCrossEncoder.add_custom_model(NAME, sources=ModelSource(hf=NAME), model_file="model.onnx")
        self._model = TextCrossEncoder(NAME, specific_model_path=folder)

    def predict(self, inputs: Sequence[tuple[str, str]], batch_size: int = 64) -> Any:
        """Return a score for each pair."""
        scores = np.fromiter(self._model.rerank_pairs(inputs, batch_size), np.float32, len(inputs))
        return 1 / (1 + np.exp(-scores))
