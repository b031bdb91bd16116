"""A weight per word: ``1_WordWeights/config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class WordWeights:
    """Multiplies the vector of each word by its ``weight`` [words]; the sum of a text's weights is what an average divides by.

    ``vocab`` are the words, ``listed`` the weights that were given and ``unknown`` that of the other words.
    """

    weight: NDArray[np.float32]
    vocab: tuple[str, ...]
    listed: Mapping[str, float]
    unknown: float
    writes: str = "token_embeddings"

    @property
    def dimension(self) -> int | None:
        """The width is not changed."""
        return None


def load(files: ModuleFiles) -> WordWeights:
    """Read the words and their weights. The tensor beside them says the same, and sentence-transformers does not read it either."""
    config = files.config()
    vocab, listed, unknown = read_words(config, files)
    return WordWeights(weights_of(vocab, listed, unknown), vocab, listed, unknown)


def read_words(config: Mapping[str, Any], files: ModuleFiles) -> tuple[tuple[str, ...], dict[str, float], float]:
    """Words, given weights and the weight of other words; raises ModelBroken where they are none."""
    vocab, listed = config["vocab"], config.get("word_weights") or {}
    if not isinstance(vocab, list) or not isinstance(listed, dict):
        raise ModelBroken(f"{files.folder}: expected a list of words, vocab, and an object of weights, word_weights")
    return (
        tuple(map(str, vocab)),
        {str(word): float(value) for word, value in listed.items()},
        float(config.get("unknown_word_weight", 1)),
    )


def weights_of(vocab: Sequence[str], listed: Mapping[str, float], unknown: float) -> NDArray[np.float32]:
    """The weight of each word [words]: the one given for it, else for its lower case, else ``unknown``."""
    return np.array([listed.get(word, listed.get(word.lower(), unknown)) for word in vocab], np.float32)
