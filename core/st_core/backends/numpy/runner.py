"""Run a stack of static modules with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from st_core.backends import DEFAULTS, RunOptions, StackInfo
from st_core.backends.numpy import modules as numpy_modules
from st_core.backends.numpy.modules import TOKEN_BUDGET, as_array, run_module

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from st_core.backends import Features, Vectors
    from st_core.modules import Module, TextModule
    from st_core.text.tokens import Tokens

__all__ = ["NumpyRunner"]


class NumpyRunner:
    """A stack of static modules."""

    def __init__(self, modules: Sequence[Module]) -> None:
        """Store the modules; the first must be a text module."""
        self.modules = tuple(modules)
        first = cast("TextModule", modules[0])
        self.info = StackInfo(first.tokenizer, first.max_length, token_budget=TOKEN_BUDGET)

    def needs_equal_lengths(self) -> bool:
        """Return False, because texts are not padded."""
        return False

    def prepare(self) -> None:
        """Do nothing, because there is nothing to prepare."""

    def run(self, tokens: Tokens, options: RunOptions = DEFAULTS) -> Features:
        """Return the features of one batch, as arrays and sparse matrices."""
        features: Features = {"tokens": tokens}
        if options.prompt_lengths is not None:
            features["prompt_length"] = options.prompt_lengths
        for module in self.modules:
            features = run_module(module, features)
        return features

    def finish(self, vectors: Vectors, dimension: int | None, *, normalize: bool) -> NDArray[np.float32]:
        """Return vectors [n, d] truncated to ``dimension`` and then, with ``normalize``, scaled to unit length."""
        cut = as_array(vectors)[:, :dimension]
        return numpy_modules.normalize(cut) if normalize else cut

    def is_out_of_memory(self, error: Exception) -> bool:  # noqa: ARG002 - the signature that all runners share
        """Return False, because numpy computes in main memory and a smaller batch would not help."""
        return False
