"""The tokenizer of models of words (word vectors and bags of words), which converts texts to ids of words."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from st_core.text.tokens import Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.text.tokens import Pair

__all__ = ["WordTokenizer"]


@dataclass(frozen=True, eq=False)
class WordTokenizer:
    """A tokenizer that splits a text at white space and looks up each word; safe in threads.

    A word is looked up unchanged, then without punctuation around it, then also in lower case. Words in ``stop_words``
    and words that are not in ``vocab`` are left out.
    """

    vocab: Mapping[str, int]
    stop_words: frozenset[str] = frozenset()
    lower_case: bool = False
    model_max_length: int | None = None
    pad_id: int = 0
    pad_type: int = 0
    pad_left: bool = False
    wants_types: bool = False
    special_ids: frozenset[int] = frozenset()

    @property
    def shown(self) -> WordTokenizer:
        """The value of the model's ``tokenizer`` attribute: this tokenizer."""
        return self

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of all words of each text."""
        return [np.array(self._ids(text), np.int32) for text in texts]

    def tokenize(self, inputs: Sequence[str] | Sequence[Pair], limit: int | None) -> Tokens:
        """Return the ids of the first ``limit`` words of each text; raises ValueError for pairs."""
        texts = [each for each in inputs if isinstance(each, str)]
        if len(texts) < len(inputs):
            raise ValueError("expected texts for a model of words, got pairs of texts")
        return Tokens([row[:limit] for row in self.plain(texts)])

    def _ids(self, text: str) -> list[int]:
        pieces = (text.lower() if self.lower_case else text).split()
        ids = (self._id(piece) for piece in pieces)
        return [index for index in ids if index is not None]

    def _id(self, piece: str) -> int | None:
        bare = piece.strip(string.punctuation)
        for form in (piece, bare, bare.lower()):
            if form in self.stop_words:
                return None
            if form and form in self.vocab:
                return self.vocab[form]
        return None

    @cached_property
    def _names(self) -> list[str]:
        return [word for word, _ in sorted(self.vocab.items(), key=lambda item: item[1])]

    def token(self, index: int) -> str:
        """Return the word with an id."""
        return self._names[index]

    def get_vocab(self) -> dict[str, int]:
        """Return a dict from each word of the vocabulary to its id."""
        return dict(self.vocab)
