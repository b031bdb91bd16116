"""``CrossEncoder`` at the path that it has in sentence-transformers 6."""

from st_core.cross_encoder import CrossEncoder

__all__ = ["CrossEncoder"]
