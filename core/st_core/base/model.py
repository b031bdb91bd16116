"""``BaseModel`` at the path that it has in sentence-transformers 6."""

from st_core.model import Model as BaseModel

__all__ = ["BaseModel"]
