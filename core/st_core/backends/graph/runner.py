"""What runs a graph: a session of one of the runtimes, what it is fed with, and the modules that are left for numpy behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.vocabulary_bounds import check_words
from st_core.errors import InputTooLong
from st_core.text.tokens import pad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.modules import Module
    from st_core.text.tokens import TextTokenizer, Tokens

__all__ = ["GraphRunner", "feed_of", "feeds_of"]

TOKEN_BUDGET = 1_024
"""Measured on two cores: 512 to 1,024 tokens a batch are fastest on both runtimes."""

Session = Callable[[Mapping[str, Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class GraphRunner:
    """A graph ready to run, and the modules that are left for numpy; ``dtype`` is what the graph computes in.

    ``file`` is the graph where it came with the model and was not made from its weights.
    """

    session: Session
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tokenizer: TextTokenizer
    max_length: int | None
    positions: int | None
    labels: int
    dtype: str
    rest: tuple[Module, ...] = ()
    even: bool = False
    token_budget: int = TOKEN_BUDGET
    device: str = "cpu"
    file: Path | None = None
    words: int | None = None

    def run(self, tokens: Tokens, prompt_length: int | None = None) -> Features:
        """The features of one batch, as arrays."""
        longest = max((row.size for row in tokens.ids), default=0)
        if self.positions is not None and longest > self.positions:
            raise InputTooLong(
                f"a text of {longest} tokens does not fit into the {self.positions} positions of the model; "
                f"leave truncation on, with a max_seq_length of {self.positions} or less"
            )
        feed = feed_of(tokens, self.tokenizer, self.inputs, prompt_length)
        check_words(feed["input_ids"], self.words)
        found = self.session({name: feed[name] for name in self.inputs})
        features: Features = {"tokens": tokens, **feed, **dict(zip(self.outputs, found, strict=True))}
        if prompt_length is not None:
            features["prompt_length"] = prompt_length
        for module in self.rest:
            features = numpy_backend.RUNNERS[type(module).__name__](module, features)
        return features

    def finish(self, vectors: Any, dimension: int | None, *, normalize: bool) -> Any:
        """Vectors [n, d] cut and brought to length one."""
        cut = vectors[:, :dimension]
        return numpy_backend.normalize(cut) if normalize else cut

    def out_of_memory(self, error: Exception) -> bool:  # noqa: ARG002 - the runners' common form
        """The memory is the machine's: a smaller batch would not help."""
        return False


def feed_of(
    tokens: Tokens, tokenizer: TextTokenizer, inputs: Sequence[str], prompt_length: int | None = None
) -> dict[str, NDArray[np.int64]]:
    """What a graph is fed for a batch: ids and mask [n, longest], and of the types and the prompt's length what ``inputs`` names."""
    ids, mask = pad(tokens.ids, tokenizer.pad_id, left=tokenizer.pad_left, least=1)
    feed = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in inputs:
        rows = tokens.types if tokens.types is not None else [row * 0 for row in tokens.ids]
        feed["token_type_ids"], _ = pad(rows, tokenizer.pad_type, left=tokenizer.pad_left, least=1)
    if "prompt_length" in inputs:
        feed["prompt_length"] = np.array([prompt_length or 0], np.int64)
    return feed


def feeds_of(
    calibration: Sequence[Any], tokenizer: TextTokenizer, inputs: Sequence[str], limit: int | None
) -> list[dict[str, NDArray[np.int64]]]:
    """One feed for each text or pair."""
    tokens = tokenizer.tokenize(list(calibration), limit)
    return [feed_of(tokens.take([index]), tokenizer, inputs) for index in range(len(tokens))]
