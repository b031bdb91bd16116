"""BM25 by sparse vectors, for stores without a text index and for the oracle: the client weighs words, the store multiplies.

A text's vector holds the term-frequency half of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond",
2009) for each of its words; a query's vector counts its words. The other half, the rarity of a word, depends on the whole collection and is
put in by the store when it searches: Qdrant's ``idf`` modifier, or :func:`idf` in the memory store. The inner product of the two is then
BM25, with one change: the average length of a text is a constant, since a client never sees all texts.

Words are runs of letters, digits and combining marks after NFKC and case folding; an underscore ends a word; Chinese and Japanese
runs become overlapping pairs of characters. There are no stop words (their rarity is near nothing) and no stemming. A word's index is the low
31 bits of its xxHash32: two words meet in about one of four billion pairs, and then count as one word.
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
    "word_index",
    "words",
]

K1 = 1.2
"""How soon a repeated word stops adding weight."""
B = 0.75
"""How much a long text is discounted, from 0 to 1."""
AVERAGE_LENGTH = 150.0
"""The length in words that counts as neither long nor short: a passage of a few hundred word pieces."""

# Python's \w leaves out combining marks, which are parts of words in Arabic, Hebrew, Indic and South-East Asian scripts. U+0964 and
# U+0965 are full stops among the Indic blocks.
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e\u0eb1-\u0ece\u1037-\u103e"
)
_WORD = re.compile(rf"(?:[^\W_]|[{_MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_IDEOGRAPHS = re.compile("[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")


def words(text: str) -> list[str]:
    """The words of a text in order, as they are compared."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    runs = _WORD.findall(folded)
    if not _IDEOGRAPHS.search(folded):
        return runs
    return [word for run in runs for word in _split_ideographs(run)]


def _split_ideographs(run: str) -> Iterator[str]:
    """A run of letters as it is, but its Chinese and Japanese parts as overlapping pairs."""
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


@lru_cache(maxsize=2**16)
def word_index(word: str) -> int:
    """The index of a word, below 2**31; those of frequent words are remembered."""
    return xxhash.xxh32_intdigest(word.encode("utf-8", "surrogatepass")) & 0x7FFF_FFFF


def _count(text: str) -> dict[int, int]:
    """How often each word's index is in a text."""
    return Counter(map(word_index, words(text)))


def document_vector(text: str) -> SparseVector:
    """The weights of a text's words, ``tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / AVERAGE_LENGTH))``; empty where there are no words."""
    return SparseVector.from_mapping(document_weights(text))


def document_weights(text: str) -> dict[int, float]:
    """The weights of ``document_vector`` by index, the least index first, for those who need no arrays."""
    counts = _count(text)
    norm = K1 * (1.0 - B + B * sum(counts.values()) / AVERAGE_LENGTH)
    return {index: counts[index] * (K1 + 1.0) / (counts[index] + norm) for index in sorted(counts)}


def query_vector(text: str) -> SparseVector:
    """How often each word is in a query; empty where there are no words."""
    return SparseVector.from_mapping(_count(text))


def idf(records: int, matching: int) -> float:
    """The rarity of a word that ``matching`` of ``records`` hold: ``ln((n - df + 0.5) / (df + 0.5) + 1)``, always positive."""
    return math.log((records - matching + 0.5) / (matching + 0.5) + 1.0)
