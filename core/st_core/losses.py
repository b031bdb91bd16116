"""The losses of dense models, at the path that sentence-transformers imports with its package."""

from __future__ import annotations

from st_core.training.losses import dense
from st_core.training.losses.dense import *  # noqa: F403 - all names of one other module

__all__ = dense.__all__
