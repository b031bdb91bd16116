"""A bag of words, with one weighted dimension per word: ``0_BoW/config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable
from st_core.modules.word_weights import read_words, weights_of
from st_core.text.words import WordTokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BoW"]


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class BoW:
    """Adds the ``weight`` [words] of a word per occurrence or, unless ``cumulative``, once.

    ``listed`` are the weights in the file, ``unknown`` is the weight of all other words.
    """

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.bow.BoW"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    tokenizer: WordTokenizer
    weight: NDArray[np.float32]
    listed: Mapping[str, float]
    unknown: float
    cumulative: bool = True

    @property
    def dimension(self) -> int | None:
        """The number of words."""
        return int(self.weight.size)

    @property
    def max_length(self) -> int | None:
        """None, because texts are not truncated."""
        return None

    @classmethod
    def load(cls, files: ModuleFiles) -> BoW:
        """Return the module in a folder, with its words and weights."""
        config = files.config()
        vocab, listed, unknown = read_words(config)
        words = {word: index for index, word in enumerate(dict.fromkeys(vocab))}
        cumulative = config.boolean("cumulative_term_frequency", default=True)
        return cls(WordTokenizer(words), weights_of(tuple(words), listed, unknown), listed, unknown, cumulative)

    def save(self) -> Parts:
        """Return the configuration, which contains the weights."""
        config = {
            "vocab": list(self.tokenizer.get_vocab()),
            "word_weights": dict(self.listed),
            "unknown_word_weight": self.unknown,
            "cumulative_term_frequency": self.cumulative,
        }
        return Parts({"config.json": config})
