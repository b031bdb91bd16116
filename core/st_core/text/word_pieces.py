"""Tokenize texts into BERT's word pieces in Python, several times faster than the ``tokenizers`` library.

The ids are equal to the library's. Most words are entries of the vocabulary, so that a regular expression and a
dictionary are sufficient for nearly all of them. Only texts in Latin script are tokenized here, because BERT's rules
are this simple for them; the library tokenizes all other texts.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["WordPieces", "read_word_pieces"]

_TYPOGRAPHIC = "\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u2022"
"""Dashes, curved quotation marks, an ellipsis and a bullet."""

_LATIN = [*map(chr, range(0x80, 0x180)), *_TYPOGRAPHIC]
"""The supported characters outside ASCII: Latin-1, Latin Extended-A and ``_TYPOGRAPHIC``."""


def _plain(character: str) -> str:
    """Return a character as BERT normalizes it, except for its case.

    White space becomes a space, accents are removed, and control characters become an empty string.
    """
    if character in "\t\n\r\xa0":
        return " "
    parts = unicodedata.normalize("NFD", character)
    return "".join(part for part in parts if unicodedata.category(part) not in ("Cc", "Cf", "Mn"))


_PLAIN = {each: _plain(each) for each in (*map(chr, (*range(32), 127)), *_LATIN)}
_MARKS = re.escape(string.punctuation + "".join(each for each in _LATIN if unicodedata.category(each)[0] == "P"))

_FOREIGN = re.compile(f"[^\x00-\u017f{_TYPOGRAPHIC}]").search
_ODD = re.compile(f"[\x00-\x1f\x7f-\u017f{_TYPOGRAPHIC}]").sub
_WORDS = re.compile(f"[^ {_MARKS}]+|[{_MARKS}]").findall
"""A function that splits a normalized text into BERT's words.

Words are the punctuation marks, and the strings between punctuation marks and spaces.
"""

_ASCII_WORDS = re.compile(r"\w+|[^\w ]", re.ASCII).findall
"""The same function for ASCII texts without underscores; it is faster by a quarter."""

_PROBES = (
    "The cat's unbelievableness, (x_1)\t[ CLS ] 3.14159!",
    "a\x00b\x0bc ~qzxj~",
    "Das Café “schließt” ÀÇİ\xa05°",
    "",
)


@dataclass(frozen=True, slots=True)
class WordPieces:
    """The vocabulary and the settings of a BERT tokenizer.

    ``first`` maps pieces at the beginning of a word to ids, and ``inner`` all other pieces. A word of more than
    ``longest`` characters, or with a part that is not in the vocabulary, has the id ``unknown``. With ``lowers``, texts
    are converted to lower case; with ``strips``, accents are removed. ``added`` are the added tokens in lower case,
    which the library matches before it splits a text into words; each contains one of the characters ``marks``.
    """

    first: Mapping[str, int]
    inner: Mapping[str, int]
    unknown: int
    longest: int
    lowers: bool
    strips: bool
    marks: str
    added: tuple[str, ...]

    def ids(self, text: str, known: dict[str, list[int]] | None = None) -> list[int] | None:
        """Return the ids of a text without special tokens; None for a text that only the library can tokenize.

        ``known`` is a cache of the pieces of words, for texts of the same call; it is updated.
        """
        if not (text.isascii() and text.isprintable()):
            if not (self.strips or text.isascii()) or _FOREIGN(text):
                return None
            text = _ODD(lambda match: _PLAIN[match[0]], text)
        lowered = text.lower()
        for mark in self.marks:
            if mark in lowered and any(token in lowered for token in self.added):
                return None
        if self.lowers:
            text = lowered
        if not text.isascii():
            words = _WORDS(text)
        elif text.replace(" ", "").isalnum():
            words = text.split()
        else:
            words = _WORDS(text) if "_" in text else _ASCII_WORDS(text)
        entries = list(map(self.first.get, words))
        if None in entries:
            return self._split_unknown(words, entries, {} if known is None else known)
        return entries  # type: ignore[return-value]

    def _split_unknown(self, words: list[str], entries: list[int | None], known: dict[str, list[int]]) -> list[int]:
        """Return the token ids of all words, in one list.

        ``entries`` are the ids of the words, None for words that are not in the vocabulary; these are replaced with the
        ids of their pieces. ``known`` caches the pieces by word.
        """
        ids: list[int | None] = []
        done = 0
        for _ in range(entries.count(None)):
            at = entries.index(None, done)
            word = words[at]
            pieces = known.get(word)
            if pieces is None:
                pieces = known[word] = self._pieces(word)
            ids += entries[done:at]
            ids += pieces
            done = at + 1
        ids += entries[done:]
        return ids  # type: ignore[return-value]

    def _pieces(self, word: str) -> list[int]:
        """Return the ids of the pieces of a word that is not in the vocabulary.

        The first piece is the longest one at the beginning of the word, and the same rule applies to the rest.
        """
        size, start, ids, look_up = len(word), 0, [], self.first.get
        if size > self.longest:
            return [self.unknown]
        while start < size:
            end = size
            while (index := look_up(word[start:end])) is None:
                end -= 1
                if end == start:
                    return [self.unknown]
            ids.append(index)
            start, look_up = end, self.inner.get
        return ids


def read_word_pieces(backend: Tokenizer) -> WordPieces | None:
    """Return the word pieces of a tokenizer of the ``tokenizers`` library.

    None unless the tokenizer is a BERT tokenizer and its ids for a few probe texts equal those of the word pieces.
    """
    pieces = _pieces_of(backend)
    if pieces is None:
        return None
    for probe in _PROBES:
        ids = pieces.ids(probe)
        if ids is not None and ids != backend.encode(probe, add_special_tokens=False).ids:
            return None
    return pieces


def _pieces_of(backend: Any) -> WordPieces | None:
    model, normalizer = backend.model, backend.normalizer
    kinds = tuple(type(part).__name__ for part in (model, normalizer, backend.pre_tokenizer))
    if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer") or not normalizer.clean_text:
        return None
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=False)
    unknown = vocabulary.get(model.unk_token)
    added = tuple(token.content.lower() for token in backend.get_added_tokens_decoder().values())
    marks = [_mark(token) for token in added]
    if unknown is None or "" in marks:
        return None
    strips, prefix = normalizer.strip_accents, model.continuing_subword_prefix
    return WordPieces(
        vocabulary,
        {piece.removeprefix(prefix): index for piece, index in vocabulary.items() if piece.startswith(prefix)},
        unknown,
        model.max_input_chars_per_word,
        normalizer.lowercase,
        normalizer.lowercase if strips is None else strips,
        "".join(sorted(set(marks))),
        added,
    )


def _mark(token: str) -> str:
    """Return the first punctuation mark in a token of printable ASCII; empty if there is none, and for other tokens."""
    if not (token.isascii() and token.isprintable()):
        return ""
    return next((each for each in token if each in string.punctuation), "")
