"""Backends run a stack of modules on a batch of tokens.

``numpy`` runs stacks of static modules and needs nothing else; ``torch`` runs stacks with a transformer. Both are made of one function per
module, from features to features; a feature has the name sentence-transformers gives it (``token_embeddings``, ``sentence_embedding``,
``scores``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from st_core.text.tokens import AnyTokenizer, Tokens

__all__ = ["Features", "Runner"]

Features = dict[str, Any]
"""Values by name: arrays of numpy or tensors of torch, by the backend."""


class Runner(Protocol):
    """A stack of modules ready to run; safe in threads."""

    @property
    def tokenizer(self) -> AnyTokenizer:
        """What turns this stack's texts into tokens."""
        ...

    @property
    def max_length(self) -> int | None:
        """The most tokens the stack's first module reads, or None."""
        ...

    @property
    def token_budget(self) -> int:
        """Tokens in a batch, padding counted, that run fastest."""
        ...

    @property
    def even(self) -> bool:
        """Whether its batches must hold texts of one length, because padding would change them."""
        ...

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    def run(self, tokens: Tokens, prompt_length: int | None = None) -> Features:
        """The features of one batch; ``prompt_length`` is how many leading tokens are the prompt's."""
        ...

    def finish(self, vectors: Any, dimension: int | None, *, normalize: bool) -> Any:
        """Vectors [n, d] cut to ``dimension`` and then, if asked, brought to length one."""
        ...

    def out_of_memory(self, error: Exception) -> bool:
        """Whether an error of ``run`` says that a smaller batch may fit."""
        ...
