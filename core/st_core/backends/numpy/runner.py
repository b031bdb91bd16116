"""Run a stack of static modules with numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from st_core.backends.numpy import modules as numpy_modules
from st_core.backends.numpy.modules import RUNNERS, TOKEN_BUDGET, as_array

if TYPE_CHECKING:
    from st_core.backends import Features
    from st_core.modules import Module
    from st_core.text.tokens import AnyTokenizer, Tokens

__all__ = ["NumpyRunner"]


@dataclass(frozen=True, slots=True)
class NumpyRunner:
    """A stack of static modules."""

    modules: tuple[Module, ...]
    token_budget: int = TOKEN_BUDGET
    even: bool = False
    device: str = "cpu"

    @property
    def tokenizer(self) -> AnyTokenizer:
        """The first module's."""
        tokenizer: AnyTokenizer = self.modules[0].tokenizer
        return tokenizer

    @property
    def max_length(self) -> int | None:
        """The first module's."""
        limit: int | None = self.modules[0].max_length
        return limit

    def run(self, tokens: Tokens, prompt_length: int | None = None) -> Features:
        """The features of one batch."""
        features: Features = {"tokens": tokens}
        if prompt_length is not None:
            features["prompt_length"] = prompt_length
        for module in self.modules:
            features = RUNNERS[type(module).__name__](module, features)
        return features

    def finish(self, vectors: Any, dimension: int | None, *, normalize: bool) -> Any:
        """Vectors [n, d] cut and brought to length one."""
        cut = as_array(vectors)[:, :dimension]
        return numpy_modules.normalize(cut) if normalize else cut

    def out_of_memory(self, error: Exception) -> bool:  # noqa: ARG002 - the runners' common form
        """Numpy's memory is the machine's: a smaller batch would not help."""
        return False
