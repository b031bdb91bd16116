"""Quantisation under the import path of ``sentence_transformers.util.quantization``."""

from __future__ import annotations

from st_core.indexes import semantic_search_faiss, semantic_search_usearch
from st_core.quantize import quantize_embeddings

__all__ = ["quantize_embeddings", "semantic_search_faiss", "semantic_search_usearch"]
