"""Compute BM25 with sparse vectors, for stores without a text index and for the reference store.

The vector of a text contains the term-frequency factor of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond", 2009) for each of its words; the vector of a query contains the number of occurrences of
its words. The other factor, the rarity of a word, depends on the complete collection and is applied by the store during
a search: Qdrant uses its ``idf`` modifier, the memory store uses :func:`idf`. The inner product then equals BM25,
except that the average length of a text is a constant, because a client does not have all texts.

Words are runs of letters, digits and combining marks after NFKC and case folding; an underscore ends a word; Chinese
and Japanese runs are split into overlapping pairs of characters. There are no stop words, whose weight is near zero
anyway, and no stemming. A word's index is the low 31 bits of its xxHash32: about one in two billion pairs of words
collides and counts as one word.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import xxhash

from st_core.vectors import SparseVector

__all__ = [
    "AVERAGE_LENGTH",
    "K1",
    "B",
    "document_vector",
    "document_weights",
    "idf",
    "query_vector",
    "spans",
    "word_index",
    "words",
]

K1 = 1.2
"""How fast the weight of a repeated word approaches its maximum; higher is slower."""
B = 0.75
"""How much long texts are penalised, from 0 to 1."""
AVERAGE_LENGTH = 150.0
"""The assumed average length in words: a passage of a few hundred word pieces."""

# Python's \w excludes combining marks, which are parts of words in Arabic, Hebrew, Indic and South-East Asian scripts.
# U+0964 and U+0965, excluded below, are full stops in the Indic blocks.
MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e\u0eb1-\u0ece\u1037-\u103e"
)
_WORD = re.compile(rf"(?:[^\W_]|[{MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
IDEOGRAPHS = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IDEOGRAPHS = re.compile(f"[{IDEOGRAPHS}]+")


def words(text: str) -> list[str]:
    """Return the normalised words of a text, in order."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    runs = _WORD.findall(folded)
    if not _IDEOGRAPHS.search(folded):
        return runs
    return [word for run in runs for word in _split_ideographs(run)]


def _split_ideographs(run: str) -> Iterator[str]:
    """Split the Chinese and Japanese parts of a run of letters into overlapping pairs."""
    position = 0
    for match in _IDEOGRAPHS.finditer(run):
        if match.start() > position:
            yield run[position : match.start()]
        part = match.group()
        if len(part) == 1:
            yield part
        else:
            yield from (part[at : at + 2] for at in range(len(part) - 1))
        position = match.end()
    if position < len(run):
        yield run[position:]


def spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each normalised word of a text with its start and end in the text, in characters.

    Overlapping pairs of Chinese and Japanese characters are yielded as such. A word is not yielded if its position is
    unknown, because normalisation changed the length of its run of letters and splits it.
    """
    for match in _WORD.finditer(text):
        start, run = match.start(), match.group()
        parts = words(run)
        if len(parts) == 1:
            yield parts[0], start, match.end()
            continue
        folded, at = run.casefold(), 0
        for word in parts:
            place = folded.find(word, at) if len(folded) == len(run) else -1
            if place >= 0:
                yield word, start + place, start + place + len(word)
                at = place + 1


@lru_cache(maxsize=2**16)
def word_index(word: str) -> int:
    """Return the index of a word, below 2**31; the indices of recent words are cached."""
    return xxhash.xxh32_intdigest(word.encode("utf-8", "surrogatepass")) & 0x7FFF_FFFF


def _count(text: str) -> dict[int, int]:
    """Count the occurrences of each word index in a text."""
    return Counter(map(word_index, words(text)))


def document_vector(text: str) -> SparseVector:
    """Return the weights of a text's words; empty for a text without words.

    A weight is ``tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / AVERAGE_LENGTH))``.
    """
    return SparseVector.from_mapping(document_weights(text))


def document_weights(text: str) -> dict[int, float]:
    """Return the weights of ``document_vector`` as a mapping with rising indices."""
    counts = _count(text)
    norm = K1 * (1.0 - B + B * sum(counts.values()) / AVERAGE_LENGTH)
    return {index: counts[index] * (K1 + 1.0) / (counts[index] + norm) for index in sorted(counts)}


def query_vector(text: str) -> SparseVector:
    """Return the number of occurrences of each word of a query; empty for a query without words."""
    return SparseVector.from_mapping(_count(text))


def idf(records: int, matching: int) -> float:
    """Return the rarity of a word that occurs in ``matching`` of ``records`` records.

    The rarity is ``ln((n - df + 0.5) / (df + 0.5) + 1)`` for ``df = matching`` and ``n = records``, which is always
    positive.
    """
    return math.log((records - matching + 0.5) / (matching + 0.5) + 1.0)
