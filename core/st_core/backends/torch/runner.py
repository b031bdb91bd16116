"""Run the steps of a stack on one torch device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from st_core.backends.torch.modules import Step
from st_core.backends.vocabulary_bounds import check_words
from st_core.errors import InputTooLong
from st_core.text.tokens import pad

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.text.tokens import AnyTokenizer, Tokens

__all__ = ["TorchRunner"]


@dataclass(frozen=True, slots=True)
class TorchRunner:
    """A stack of modules on one device; nothing in it changes when it runs."""

    steps: tuple[Step, ...]
    tokenizer: AnyTokenizer
    max_length: int | None
    token_budget: int
    device: str
    dtype: torch.dtype
    _device: torch.device
    labels: int = 1
    positions: int | None = None
    pooled_steps: tuple[Step, ...] = ()
    words: int | None = None
    even: bool = False

    def run(
        self, tokens: Tokens, prompt_length: int | None = None, keep: int | None = None, *, pooled: bool = False
    ) -> Features:
        """The features of one batch, as tensors on the device; ``keep`` is how many dimensions of a sparse code stay.

        ``pooled`` says that vectors of single tokens will not be read: they may be missing then.
        """
        tokenizer = self.tokenizer
        self._check_lengths(tokens)
        ids, mask = pad(tokens.ids, tokenizer.pad_id, left=tokenizer.pad_left, least=1)
        check_words(ids, self.words)
        features: Features = {
            "tokens": tokens,
            "input_ids": self._send(ids),
            "attention_mask": self._send(mask),
        }
        if tokenizer.wants_types:
            features["token_type_ids"] = self._types(tokens, features["input_ids"])
        if prompt_length is not None:
            features["prompt_length"] = prompt_length
        if keep is not None:
            features["max_active_dims"] = keep
        with torch.inference_mode():
            for step in (self.pooled_steps if pooled else ()) or self.steps:
                features = step(features)
        return features

    def _check_lengths(self, tokens: Tokens) -> None:
        longest = max((row.size for row in tokens.ids), default=0)
        if self.positions is not None and longest > self.positions:
            raise InputTooLong(
                f"a text of {longest} tokens does not fit into the {self.positions} positions of the model; "
                f"leave truncation on, with a max_seq_length of {self.positions} or less"
            )

    def _types(self, tokens: Tokens, ids: Tensor) -> Tensor:
        if tokens.types is None and self.tokenizer.pad_type == 0:
            return torch.zeros_like(ids)
        rows = tokens.types if tokens.types is not None else [row * 0 for row in tokens.ids]
        types, _ = pad(rows, self.tokenizer.pad_type, left=self.tokenizer.pad_left)
        return self._send(types)

    def _send(self, array: NDArray[np.int64]) -> Tensor:
        """An array on the device: to a card from pinned memory, without waiting for what the card still computes (not verified on one)."""
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def finish(self, vectors: Tensor, dimension: int | None, *, normalize: bool) -> Tensor:
        """Vectors [n, d] cut and brought to length one."""
        with torch.inference_mode():
            cut = vectors[:, :dimension]
            return functional.normalize(cut, p=2, dim=1) if normalize else cut

    def out_of_memory(self, error: Exception) -> bool:
        """Torch's own error for a full card."""
        return isinstance(error, torch.OutOfMemoryError)
