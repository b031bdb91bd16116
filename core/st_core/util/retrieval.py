"""Search in memory under the import path of ``sentence_transformers.util.retrieval``."""

from __future__ import annotations

from st_core.retrieval import community_detection, paraphrase_mining, paraphrase_mining_embeddings, semantic_search

__all__ = [
    "community_detection",
    "information_retrieval",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "semantic_search",
]

information_retrieval = semantic_search
"""The old name of ``semantic_search``."""
