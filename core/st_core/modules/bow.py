"""A bag of words: a text is the weights of its words, one dimension a word; ``0_BoW/config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.modules import ModuleFiles
from st_core.modules.word_weights import read_words, weights_of
from st_core.text.words import WordTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class BoW:
    """Each occurrence of a word adds its ``weight`` [words], or with ``cumulative`` off only the first does.

    ``listed`` are the weights that were given, ``unknown`` that of the other words.
    """

    tokenizer: WordTokenizer
    weight: NDArray[np.float32]
    listed: Mapping[str, float]
    unknown: float
    cumulative: bool = True

    @property
    def dimension(self) -> int | None:
        """One for each word."""
        return int(self.weight.size)

    @property
    def max_length(self) -> int | None:
        """All of a text is read."""
        return None


def load(files: ModuleFiles) -> BoW:
    """Read the words and their weights."""
    config = files.config()
    vocab, listed, unknown = read_words(config, files)
    words = {word: index for index, word in enumerate(dict.fromkeys(vocab))}
    cumulative = bool(config.get("cumulative_term_frequency", True))
    return BoW(WordTokenizer(words), weights_of(tuple(words), listed, unknown), listed, unknown, cumulative)


def count(module: BoW, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """The weights of the words of each text [n, words]."""
    result = np.zeros((len(rows), module.weight.size), np.float32)
    for index, row in enumerate(rows):
        if module.cumulative:
            np.add.at(result[index], row, module.weight[row])
        else:
            result[index, row] = module.weight[row]
    return result
