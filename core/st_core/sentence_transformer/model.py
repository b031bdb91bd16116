"""``SentenceTransformer`` at the path that it has in sentence-transformers 6."""

from st_core.sentence_transformer import SentenceTransformer

__all__ = ["SentenceTransformer"]
