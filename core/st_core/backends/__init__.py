"""Backends run a stack of modules on a batch of tokens.

``numpy`` runs stacks of static modules and needs nothing else; ``torch`` runs stacks with a transformer; ``graph`` runs
stacks that were exported for ONNX Runtime or OpenVINO. A feature has the name sentence-transformers gives it
(``token_embeddings``, ``sentence_embedding``, ``scores``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from st_core.text.tokens import AnyTokenizer, Tokens
    from st_core.vectors import SparseMatrix

__all__ = ["DEFAULTS", "Features", "Outline", "Rows", "RunOptions", "Runner", "StackInfo", "Vectors"]

Features: TypeAlias = dict[str, Any]
"""Values by name: numpy arrays or torch tensors, by backend."""

Rows: TypeAlias = Any
"""A numpy array or a torch tensor, one row per text; mypy knows no type for the operations that both have."""

Vectors: TypeAlias = "NDArray[np.float32] | torch.Tensor | SparseMatrix"
"""One vector per text [n, d]."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Stack metadata that can be read without loading weights.

    ``max_length`` is the maximum tokens of a text, None for no limit. ``precision`` is the dtype that the stack
    computes in, with a suffix for whatever else changes its numbers. ``repository_graph`` is the graph file that runs
    the stack, where it came with the model.
    """

    tokenizer: AnyTokenizer
    max_length: int | None
    precision: str = "float32"
    repository_graph: Path | None = None


@dataclass(frozen=True, slots=True)
class StackInfo(Outline):
    """Stack metadata.

    ``token_budget`` is the number of tokens per batch, padding included, that runs fastest. ``positions`` is the number
    of tokens that the model has position vectors for, ``vocabulary`` the number that it has token vectors for; None for
    no limit. ``labels`` is the number of scores of a pair. ``outputs`` are the features that a graph computes, None
    where modules compute whatever they write.
    """

    token_budget: int = 1_024
    device: str = "cpu"
    positions: int | None = None
    vocabulary: int | None = None
    labels: int = 1
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one forward pass.

    ``keep`` is the number of dimensions of a sparse code that stay, None for the model's own. ``pooled`` says that
    vectors of single tokens will not be read: they may be missing then. ``prompt_lengths`` [n] is the number of leading
    tokens of each text that belong to its prompt, None where no text has one.
    """

    keep: int | None = None
    pooled: bool = False
    prompt_lengths: NDArray[np.int64] | None = None


DEFAULTS = RunOptions()
"""The options of a pass that computes everything for texts without a prompt."""


class Runner(Protocol):
    """A stack of modules ready to run on one backend; safe in threads."""

    @property
    def info(self) -> StackInfo:
        """The stack's metadata; reading it runs nothing."""
        ...

    def needs_equal_lengths(self) -> bool:
        """Return whether a batch must hold texts of one length because padding would change them.

        May run the stack once.
        """
        ...

    def prepare(self) -> None:
        """Do the work of the first use now, so that processes forked later share it."""
        ...

    def run(self, tokens: Tokens, options: RunOptions = ...) -> Features:
        """Return the features of one batch; raise InputTooLong for a text beyond the model's positions."""
        ...

    def finish(self, vectors: Rows, dimension: int | None, *, normalize: bool) -> Rows:
        """Return vectors [n, d] truncated to ``dimension`` and then, with ``normalize``, scaled to unit length."""
        ...

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether a smaller batch may fit after an error of ``run``."""
        ...
