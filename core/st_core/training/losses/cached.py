"""The base of losses with cached gradients; see :mod:`st_core.training.parts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from st_core.training.losses.loss import EmbeddingLoss
from st_core.training.parts import Function, check_parts, with_cached_gradients

__all__ = ["CachedLoss"]


class CachedLoss(EmbeddingLoss):
    """Computes embeddings in parts, beside a loss that has the formula.

    Parts have at most ``mini_batch_size`` rows, and with ``mini_batch_num_tokens`` at most that number of tokens.
    """

    mini_batch_size: int = 32
    mini_batch_num_tokens: int | None = None

    def set_parts(self, rows: int, tokens: int | None) -> None:
        """Store the sizes of parts after checking them."""
        check_parts(rows, tokens)
        self.mini_batch_size = rows
        self.mini_batch_num_tokens = tokens

    def embedded(self, features: Sequence[dict[str, Any]], function: Function) -> Any:
        """Return a function of the embeddings, whose backward pass embeds every part again."""
        rows, tokens = self.mini_batch_size, self.mini_batch_num_tokens
        return with_cached_gradients(self.model, features, function, "sentence_embedding", rows=rows, tokens=tokens)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the loss."""
        parts = {"mini_batch_size": self.mini_batch_size, "mini_batch_num_tokens": self.mini_batch_num_tokens}
        return super().get_config_dict() | parts
