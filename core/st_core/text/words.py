"""Texts become the numbers of their words: the tokenizer of models of word vectors and of bags of words."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.text.tokens import Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WordTokenizer"]


@dataclass(frozen=True, eq=False)
class WordTokenizer:
    """Splits at white space and looks each piece up: as it is, then without punctuation around it, then in lower case.

    Pieces among ``stop_words``, and those not in ``vocab``, are left out. Safe in threads.
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
    def shown(self) -> Any:
        """What a model offers as its ``tokenizer``: itself."""
        return self

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The numbers of each text's words, uncut."""
        return [np.array(self._numbers(text), np.int32) for text in texts]

    def tokenize(self, inputs: Sequence[Any], limit: int | None) -> Tokens:
        """The first ``limit`` words of each text."""
        if any(not isinstance(each, str) for each in inputs):
            raise ValueError("a model of words reads texts, not pairs of texts")
        return Tokens([row[:limit] for row in self.plain(inputs)])

    def _numbers(self, text: str) -> list[int]:
        pieces = (text.lower() if self.lower_case else text).split()
        numbers = (self._number(piece) for piece in pieces)
        return [number for number in numbers if number is not None]

    def _number(self, piece: str) -> int | None:
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
        """The word of a number."""
        return self._names[index]

    def get_vocab(self) -> dict[str, int]:
        """Every word with its number."""
        return dict(self.vocab)
