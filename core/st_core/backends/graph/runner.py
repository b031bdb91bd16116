"""Run a graph in a session of one of the runtimes, and run the modules after the graph with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.backends import DEFAULTS, RunOptions, StackInfo
from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.vocabulary_bounds import check_positions, check_words
from st_core.text.tokens import TextTokenizer, pad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.backends.graph.runtimes import Feed, RunGraph
    from st_core.modules import Module
    from st_core.text.tokens import Tokens

__all__ = ["GraphRunner", "feed_of", "feeds_of"]

TOKEN_BUDGET = 1_024
"""Tokens per batch; measured on two cores, 512 to 1,024 are fastest on both runtimes."""


@dataclass(frozen=True, slots=True)
class GraphRunner:
    """A graph ready to run, with the modules after it that numpy runs.

    ``session`` runs the graph; ``inputs`` and ``outputs`` are the names of its arrays in order. ``info.tokenizer`` is a
    TextTokenizer.
    """

    session: RunGraph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    info: StackInfo
    rest: tuple[Module, ...] = ()
    has_equal_lengths: bool = False

    def needs_equal_lengths(self) -> bool:
        """Return whether all texts of a batch must have the same length, as tested on storing or loading the graph."""
        return self.has_equal_lengths

    def prepare(self) -> None:
        """Do nothing: threads of the runtime would not survive a fork, so each process opens the graph itself."""

    def run(self, tokens: Tokens, options: RunOptions = DEFAULTS) -> Features:
        """Return the features of one batch as numpy arrays."""
        check_positions(tokens, self.info.positions)
        tokenizer = self.info.tokenizer
        assert isinstance(tokenizer, TextTokenizer)
        feed = feed_of(tokens, tokenizer, self.inputs)
        check_words(feed["input_ids"], self.info.vocabulary)
        features: Features = {"tokens": tokens, **feed}
        features |= dict(zip(self.outputs, self._outputs(feed, options.prompt_lengths), strict=True))
        if options.prompt_lengths is not None:
            features["prompt_length"] = options.prompt_lengths
        for module in self.rest:
            features = numpy_backend.run_module(module, features)
        return features

    def _outputs(self, feed: Feed, prompt_lengths: NDArray[np.int64] | None) -> list[NDArray[np.float32]]:
        """Run the graph, once for each distinct prompt length where the graph takes one prompt length for all texts."""
        feed = {name: feed[name] for name in self.inputs if name in feed}
        if "prompt_length" not in self.inputs:
            return self.session(feed)
        lengths = np.zeros(len(feed["input_ids"]), np.int64) if prompt_lengths is None else prompt_lengths
        distinct = np.unique(lengths)
        if distinct.size == 1:
            return self.session(feed | {"prompt_length": distinct})
        rows = [np.flatnonzero(lengths == length) for length in distinct]
        parts = [
            self.session(
                {name: array[picked] for name, array in feed.items()} | {"prompt_length": distinct[at : at + 1]}
            )
            for at, picked in enumerate(rows)
        ]
        order = np.argsort(np.concatenate(rows))
        return [np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True)]

    def finish(self, vectors: NDArray[np.float32], dimension: int | None, *, normalize: bool) -> NDArray[np.float32]:
        """Return vectors [n, d] truncated to ``dimension`` and then, with ``normalize``, scaled to unit length."""
        cut = vectors[:, :dimension]
        return numpy_backend.normalize(cut) if normalize else cut

    def is_out_of_memory(self, error: Exception) -> bool:  # noqa: ARG002 - the signature that all runners share
        """Return False, because graphs run in main memory and a smaller batch would not help."""
        return False


def feed_of(tokens: Tokens, tokenizer: TextTokenizer, inputs: Sequence[str]) -> Feed:
    """Return a graph's inputs [n, longest] for a batch: ids, mask and, if ``inputs`` contains them, segment ids."""
    ids, mask = pad(tokens.ids, tokenizer.pad_id, left=tokenizer.pad_left, least=1)
    feed = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in inputs:
        rows = tokens.types if tokens.types is not None else [row * 0 for row in tokens.ids]
        feed["token_type_ids"], _ = pad(rows, tokenizer.pad_type, left=tokenizer.pad_left, least=1)
    return feed


def feeds_of(
    calibration: Sequence[str] | Sequence[tuple[str, str]],
    tokenizer: TextTokenizer,
    inputs: Sequence[str],
    limit: int | None,
) -> list[Feed]:
    """Return the inputs of a graph for each text or pair, without a prompt, truncated to ``limit`` tokens."""
    tokens = tokenizer.tokenize(calibration, limit)
    prompt: Feed = {"prompt_length": np.zeros(1, np.int64)} if "prompt_length" in inputs else {}
    return [feed_of(tokens.take([index]), tokenizer, inputs) | prompt for index in range(len(tokens))]
