"""Word weights: ``1_WordWeights/config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from st_core.checkpoint.files import JsonObject
from st_core.modules import TOKEN_EMBEDDINGS, ModuleFiles, Parts, unchangeable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WordWeights", "read_words", "weights_of"]


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class WordWeights:
    """Multiplies each word's vector by its ``weight`` [words]; means are divided by the sum of a text's weights.

    ``vocab`` are the words, ``listed`` the weights in the file and ``unknown`` is the weight of all other words.
    """

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.word_weights.WordWeights"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = TOKEN_EMBEDDINGS

    weight: NDArray[np.float32]
    vocab: tuple[str, ...]
    listed: Mapping[str, float]
    unknown: float
    writes: str = TOKEN_EMBEDDINGS

    @property
    def dimension(self) -> int | None:
        """None, because the width does not change."""
        return None

    @classmethod
    def load(cls, files: ModuleFiles) -> WordWeights:
        """Return the module in a folder; the tensor that repeats the weights of the configuration is ignored."""
        vocab, listed, unknown = read_words(files.config())
        return cls(weights_of(vocab, listed, unknown), vocab, listed, unknown)

    def save(self) -> Parts:
        """Return configuration and weights."""
        config = {
            "vocab": list(self.vocab),
            "word_weights": dict(self.listed),
            "unknown_word_weight": self.unknown,
        }
        return Parts({"config.json": config}, {"emb_layer.weight": self.weight[:, None]})


def read_words(config: JsonObject) -> tuple[tuple[str, ...], dict[str, float], float]:
    """Return the words, the listed weights and the weight of all other words in a configuration."""
    listed = config.nested("word_weights")
    return (
        tuple(map(str, config.array("vocab"))),
        {word: listed.number(word, 1) for word in listed},
        config.number("unknown_word_weight", 1),
    )


def weights_of(vocab: Sequence[str], listed: Mapping[str, float], unknown: float) -> NDArray[np.float32]:
    """Return the weights [words]: that of the word, else that of its lowercase form, else ``unknown``."""
    return np.array([listed.get(word, listed.get(word.lower(), unknown)) for word in vocab], np.float32)
