"""Backends run a stack of modules on a batch of tokens.

``numpy`` runs stacks of static modules and needs no other package; ``torch`` runs stacks with a transformer; ``graph``
runs stacks that were exported for ONNX Runtime or OpenVINO. Features have the names that sentence-transformers gives
them (``token_embeddings``, ``sentence_embedding``, ``scores``).
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
"""Features by name: numpy arrays or torch tensors, depending on the backend."""

Rows: TypeAlias = Any
"""A numpy array or a torch tensor with one row per text; no static type covers the operations that both share."""

Vectors: TypeAlias = "NDArray[np.float32] | torch.Tensor | SparseMatrix"
"""One vector per text [n, d]."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Stack metadata that can be read without loading weights.

    ``max_length`` is the maximum number of tokens of a text, None for no limit. ``precision`` is the dtype that the
    stack computes in, with a suffix for any other setting that changes its vectors. ``repository_graph`` is the graph
    file that runs the stack where that file came with the model.
    """

    tokenizer: AnyTokenizer
    max_length: int | None
    precision: str = "float32"
    repository_graph: Path | None = None


@dataclass(frozen=True, slots=True)
class StackInfo(Outline):
    """Stack metadata.

    ``token_budget`` is the number of tokens per batch, padding included, that runs fastest. ``positions`` and
    ``vocabulary`` are the numbers of position embeddings and token embeddings of the model, None for no limit.
    ``labels`` is the number of scores of a pair. ``outputs`` are the features that a graph computes, None where the
    stack does not run as a graph.
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

    ``keep`` is the maximum number of non-zero dimensions of a sparse vector, None for the default of the model.
    ``pooled`` means that token vectors will not be read and may be left out. ``prompt_lengths`` [n] is the number of
    leading tokens of each text that belong to its prompt, None where no text has a prompt.
    """

    keep: int | None = None
    pooled: bool = False
    prompt_lengths: NDArray[np.int64] | None = None


DEFAULTS = RunOptions()
"""Options of a pass that computes all features, for texts without a prompt."""


class Runner(Protocol):
    """A stack of modules ready to run on one backend; safe in threads."""

    @property
    def info(self) -> StackInfo:
        """The stack metadata; reading it does not run the stack."""
        ...

    def needs_equal_lengths(self) -> bool:
        """Return whether a batch must contain only texts of equal length because padding would change their results.

        The first call may run the stack once.
        """
        ...

    def prepare(self) -> None:
        """Prepare the stack now rather than on first use, so that processes forked later share the result."""
        ...

    def run(self, tokens: Tokens, options: RunOptions = ...) -> Features:
        """Return the features of one batch; raise InputTooLong for a text with more tokens than the model allows."""
        ...

    def finish(self, vectors: Rows, dimension: int | None, *, normalize: bool) -> Rows:
        """Return vectors [n, d] truncated to ``dimension`` and then, with ``normalize``, scaled to unit length."""
        ...

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether ``error``, raised by ``run``, is an out-of-memory error that a smaller batch may avoid."""
        ...
