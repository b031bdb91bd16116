"""Hard negatives, under the path of sentence-transformers."""

from __future__ import annotations

from st_core.mining.in_memory import mine_hard_negatives

__all__ = ["mine_hard_negatives"]
