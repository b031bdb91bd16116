"""Module classes of dense encoders, at the path that they have in sentence-transformers; see :mod:`st_core.models`."""

from __future__ import annotations

from typing import Any

from st_core import models
from st_core.models import (
    Asym,
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
)

__all__ = [
    "Asym",
    "Dense",
    "Dropout",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "Router",
    "StaticEmbedding",
    "Transformer",
]

__path__: list[str] = []  # submodules are in st_core.import_paths


def __getattr__(name: str) -> Any:
    return getattr(models, name)
