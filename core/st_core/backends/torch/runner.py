"""Run the steps of a stack on one torch device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from st_core.backends import DEFAULTS, RunOptions, StackInfo
from st_core.backends.torch.once import Once
from st_core.backends.vocabulary_bounds import check_positions, check_words
from st_core.text.tokens import pad

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.text.tokens import Tokens

__all__ = ["Program", "Run", "TorchRunner"]

Run = Callable[["Features"], "Features"]
"""A step ready to run."""


@dataclass(frozen=True, slots=True)
class Program:
    """The steps of a stack, and the steps that compute only its pooled vectors, where there are any."""

    steps: tuple[Run, ...]
    pooled_steps: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class TorchRunner:
    """A stack of modules on one device; safe in threads.

    What it computes is prepared at first use: weights are packed and forward passes compared then, which runs in
    threads. A process that forks later calls ``prepare`` first, so that its children share the packed weights.
    """

    program: Once[Program]
    info: StackInfo
    torch_device: torch.device
    mixes_padding: Once[bool] | None = None

    def needs_equal_lengths(self) -> bool:
        """Return whether a batch must hold texts of one length because padding would change them.

        Tried at first use.
        """
        return self.mixes_padding is not None and self.mixes_padding()

    def prepare(self) -> None:
        """Do the work of the first use now; raises what that raises."""
        self.program()
        self.needs_equal_lengths()

    def run(self, tokens: Tokens, options: RunOptions = DEFAULTS) -> Features:
        """Return the features of one batch, as tensors on the device."""
        tokenizer = self.info.tokenizer
        check_positions(tokens, self.info.positions)
        ids, mask = pad(tokens.ids, tokenizer.pad_id, left=tokenizer.pad_left, least=1)
        check_words(ids, self.info.vocabulary)
        features: Features = {
            "tokens": tokens,
            "input_ids": self._send(ids),
            "attention_mask": self._send(mask),
        }
        if tokenizer.wants_types:
            features["token_type_ids"] = self._types(tokens, features["input_ids"])
        if options.prompt_lengths is not None:
            features["prompt_length"] = self._send(options.prompt_lengths)
        if options.keep is not None:
            features["max_active_dims"] = options.keep
        program = self.program()
        with torch.inference_mode():
            for step in (program.pooled_steps if options.pooled else ()) or program.steps:
                features = step(features)
        return features

    def _types(self, tokens: Tokens, ids: Tensor) -> Tensor:
        tokenizer = self.info.tokenizer
        if tokens.types is None and tokenizer.pad_type == 0:
            return torch.zeros_like(ids)
        rows = tokens.types if tokens.types is not None else [row * 0 for row in tokens.ids]
        types, _ = pad(rows, tokenizer.pad_type, left=tokenizer.pad_left)
        return self._send(types)

    def _send(self, array: NDArray[np.int64]) -> Tensor:
        """Return an array on the device: to a card from pinned memory, without waiting for its pending work."""
        tensor = torch.from_numpy(array)
        if self.torch_device.type == "cuda":
            return tensor.pin_memory().to(self.torch_device, non_blocking=True)
        return tensor.to(self.torch_device)

    def finish(self, vectors: Tensor, dimension: int | None, *, normalize: bool) -> Tensor:
        """Return vectors [n, d] truncated, then scaled to unit length with ``normalize``."""
        with torch.inference_mode():
            cut = vectors[:, :dimension]
            return functional.normalize(cut, p=2, dim=1) if normalize else cut

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error is torch's for a full card."""
        return isinstance(error, torch.OutOfMemoryError)
