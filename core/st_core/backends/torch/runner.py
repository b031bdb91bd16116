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
"""A function that runs a step."""


@dataclass(frozen=True, slots=True)
class Program:
    """The steps of a stack, and, where such steps exist, those that compute only the pooled vectors."""

    steps: tuple[Run, ...]
    pooled_steps: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class TorchRunner:
    """A stack of modules on one device; safe in threads.

    It is prepared on first use: weights are packed and forward passes are compared, which starts threads. A process
    that forks later should call ``prepare`` first, so that its children share the packed weights.
    """

    program: Once[Program]
    info: StackInfo
    torch_device: torch.device
    mixes_padding: Once[bool] | None = None

    def needs_equal_lengths(self) -> bool:
        """Return whether a batch must contain only texts of equal length because padding would change their results.

        The first call runs the stack to test this.
        """
        return self.mixes_padding is not None and self.mixes_padding()

    def prepare(self) -> None:
        """Prepare the stack now rather than on first use, with the same errors."""
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
        """Return an array as a tensor on the device; a GPU receives it from pinned memory, without synchronisation."""
        tensor = torch.from_numpy(array)
        if self.torch_device.type == "cuda":
            return tensor.pin_memory().to(self.torch_device, non_blocking=True)
        return tensor.to(self.torch_device)

    def finish(self, vectors: Tensor, dimension: int | None, *, normalize: bool) -> Tensor:
        """Return vectors [n, d] truncated to ``dimension`` and then, with ``normalize``, scaled to unit length."""
        with torch.inference_mode():
            cut = vectors[:, :dimension]
            return functional.normalize(cut, p=2, dim=1) if normalize else cut

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error is torch's out-of-memory error of a GPU."""
        return isinstance(error, torch.OutOfMemoryError)
