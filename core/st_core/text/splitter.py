"""Split long text into overlapping windows of limited tokens, each a verbatim part of the text with its position.

A window ends, in order of preference, at the end of a paragraph, a sentence or a word, or between two tokens; the
better the place, the earlier it may be. Every character is in a window. A window tokenized alone has at most the
allowed tokens, which is checked: a part of a text may have other tokens alone than within the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Offsets", "Window", "offsets_of", "split"]

Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""A function from a text to the span of each token: (first character, character after the last); no special tokens."""

PLACES = (
    (re.compile(r"\s*\n[ \t\r]*\n\s*"), 1 / 2),
    (re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\s*\n\s*"), 2 / 3),  # noqa: RUF001 -- full-width marks are meant
    (re.compile(r"\s+"), 0.0),
)
"""Preferred ends of a window, best first, and the part of the window after which each is accepted."""


@dataclass(frozen=True, slots=True)
class Window:
    """The part ``text`` = whole[start:end], and the number of windows before it."""

    text: str
    start: int
    end: int
    number: int


def offsets_of(tokenizer: Tokenizer) -> Offsets:
    """Return the offsets function of a copy of a tokenizer, without truncation or padding; safe in threads."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_truncation()
    own.no_padding()

    def offsets(text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = own.encode(text, add_special_tokens=False).offsets
        return spans

    return offsets


def split(text: str, offsets: Offsets, *, size: int, overlap: int = 0) -> list[Window]:
    """Return windows of at most ``size`` tokens; each starts about ``overlap`` tokens before the end of the last one.

    A text without tokens has one window. A character of more than ``size`` tokens is a window of its own. Raises
    ValueError unless 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"expected an overlap from 0 to {size - 1}, one less than the size, got {overlap}")
    places = offsets(text)
    if len(places) <= size:
        return [Window(text, 0, len(text), 0)]
    cuts = _Cuts.of(text, offsets, places)
    windows: list[Window] = []
    first = last = 0
    while cuts.characters[last] < len(text):
        first, last = _span(cuts, _next_start(cuts, first, last, overlap), last, size)
        start, end = cuts.characters[first], cuts.characters[last]
        windows.append(Window(text[start:end], start, end, len(windows)))
    return windows


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Cuts between tokens of a text: ``characters``, the number of ``tokens`` before each, ``ranks`` in PLACES."""

    text: str
    offsets: Offsets
    characters: list[int]
    tokens: list[int]
    ranks: list[int]

    @classmethod
    def of(cls, text: str, offsets: Offsets, places: Sequence[tuple[int, int]]) -> _Cuts:
        """Return the start, the end, and the start of each token that does not overlap with earlier ones."""
        reached = [0, *accumulate((end for _, end in places), max)]
        clean = [
            number for number, (start, _) in enumerate(places) if start >= reached[number] and 0 < start < len(text)
        ]
        characters = [places[number][0] for number in clean]
        ranks = _ranks(text)
        distinct = [spot for spot in range(len(clean)) if spot == 0 or characters[spot] > characters[spot - 1]]
        return cls(
            text,
            offsets,
            [0, *(characters[spot] for spot in distinct), len(text)],
            [0, *(clean[spot] for spot in distinct), len(places)],
            [0, *(ranks[characters[spot]] for spot in distinct), 0],
        )

    def alone(self, first: int, last: int) -> int:
        """Return the number of tokens of the text between two cuts, tokenized alone."""
        return len(self.offsets(self.text[self.characters[first] : self.characters[last]]))


def _ranks(text: str) -> bytearray:
    """Return for each character the rank of a cut before it, the number of PLACES for none of them."""
    ranks = bytearray([len(PLACES)]) * (len(text) + 1)
    for rank in reversed(range(len(PLACES))):
        for match in PLACES[rank][0].finditer(text):
            start, end = match.span()
            ranks[start : end + 1] = bytes([rank]) * (end + 1 - start)
    return ranks


def _next_start(cuts: _Cuts, first: int, last: int, overlap: int) -> int:
    """Return the start of the next window: ``overlap`` tokens before the end, or the next start of a word."""
    if last == 0:
        return 0
    earliest = max(first + 1, bisect_left(cuts.tokens, cuts.tokens[last] - overlap))
    words = (cut for cut in range(earliest, last + 1) if cuts.ranks[cut] < len(PLACES))
    return next(words, min(earliest, last))


def _span(cuts: _Cuts, first: int, after: int, size: int) -> tuple[int, int]:
    """Return the cuts of a window that ends after the cut ``after``; the overlap shrinks where it leaves no room."""
    for start in range(first, after):
        end = _end(cuts, start, after, size)
        if end > after:
            return start, end
    return after, max(after + 1, _end(cuts, after, after, size))


def _end(cuts: _Cuts, first: int, after: int, size: int) -> int:
    """Return the best cut after ``after`` for a window from ``first`` of at most ``size`` tokens, else ``after``."""
    allowed = size
    while True:
        furthest = bisect_left(cuts.tokens, cuts.tokens[first] + allowed + 1) - 1
        if furthest <= after:
            return after
        last = furthest if furthest == len(cuts.tokens) - 1 else _best(cuts, first, after, furthest)
        excess = cuts.alone(first, last) - size
        if excess <= 0:
            return last
        allowed = min(allowed - 1, cuts.tokens[last] - cuts.tokens[first] - excess)


def _best(cuts: _Cuts, first: int, after: int, furthest: int) -> int:
    """Return the last cut of the best rank among those far enough into the window for their rank."""
    length = cuts.tokens[furthest] - cuts.tokens[first]
    for rank, (_, part) in enumerate(PLACES):
        least = cuts.tokens[first] + part * length
        for cut in range(furthest, after, -1):
            if cuts.tokens[cut] < least:
                break
            if cuts.ranks[cut] == rank:
                return cut
    return furthest
