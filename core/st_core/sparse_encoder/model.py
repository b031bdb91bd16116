"""``SparseEncoder`` at the path that it has in sentence-transformers 6."""

from st_core.sparse_encoder import SparseEncoder

__all__ = ["SparseEncoder"]
