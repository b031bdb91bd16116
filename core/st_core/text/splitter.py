"""Long text to overlapping windows of so many tokens, each a verbatim piece of the text with its place in it.

A window ends, in this order of preference, at the end of a paragraph, of a sentence, of a word, or between two tokens; the better the
place, the further back it may lie. Every character of the text is in some window. A window tokenised alone has no more than the
allowed tokens, which needs a second look, since a piece of text may have other tokens than it had inside the whole.
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
"""The place of each token of a text, special tokens left out: (first character, character after the last)."""

PLACES = (
    (re.compile(r"\s*\n[ \t\r]*\n\s*"), 1 / 2),
    (re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\s*\n\s*"), 2 / 3),  # noqa: RUF001 -- full-width marks are meant
    (re.compile(r"\s+"), 0.0),
)
"""Where a window likes to end, best first, and from which part of the window on such an end is taken."""


@dataclass(frozen=True, slots=True)
class Window:
    """The piece ``text`` = whole[start:end], and how many windows come before it."""

    text: str
    start: int
    end: int
    number: int


def offsets_of(tokenizer: Tokenizer) -> Offsets:
    """The offsets of a tokenizer without truncation or padding; it is copied, so neither its state nor other threads are touched."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_truncation()
    own.no_padding()

    def offsets(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = own.encode(text, add_special_tokens=False).offsets
        return found

    return offsets


def split(text: str, offsets: Offsets, *, size: int, overlap: int = 0) -> list[Window]:
    """Cut a text into windows of at most ``size`` tokens; a window starts about ``overlap`` tokens before the end of the one before it.

    There is always at least one window, also for a text without tokens. A lone character of more than ``size`` tokens is a window of its
    own. Raises ValueError unless 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"an overlap lies between 0 and the size less one, {size - 1}, not at {overlap}")
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
    """Where a text can be cut without tearing a token: at ``characters``, after so many ``tokens``; ``ranks`` index PLACES."""

    text: str
    offsets: Offsets
    characters: list[int]
    tokens: list[int]
    ranks: list[int]

    @classmethod
    def of(cls, text: str, offsets: Offsets, places: Sequence[tuple[int, int]]) -> _Cuts:
        """The start, the end, and each token that starts where or after all tokens before it have ended."""
        reached = [0, *accumulate((end for _, end in places), max)]
        clean = [
            number for number, (start, _) in enumerate(places) if start >= reached[number] and 0 < start < len(text)
        ]
        characters = [places[number][0] for number in clean]
        ranks = _ranks(text)
        kept = [spot for spot in range(len(clean)) if spot == 0 or characters[spot] > characters[spot - 1]]
        return cls(
            text,
            offsets,
            [0, *(characters[spot] for spot in kept), len(text)],
            [0, *(clean[spot] for spot in kept), len(places)],
            [0, *(ranks[characters[spot]] for spot in kept), 0],
        )

    def alone(self, first: int, last: int) -> int:
        """How many tokens the text between two cuts has when it is tokenised by itself."""
        return len(self.offsets(self.text[self.characters[first] : self.characters[last]]))


def _ranks(text: str) -> bytearray:
    """For each character the best of PLACES that a cut before it would be, or their number where it is none."""
    ranks = bytearray([len(PLACES)]) * (len(text) + 1)
    for rank in reversed(range(len(PLACES))):
        for match in PLACES[rank][0].finditer(text):
            start, end = match.span()
            ranks[start : end + 1] = bytes([rank]) * (end + 1 - start)
    return ranks


def _next_start(cuts: _Cuts, first: int, last: int, overlap: int) -> int:
    """The cut where the window after first..last starts: ``overlap`` tokens before its end, moved on to a word's start if one lies there."""
    if last == 0:
        return 0
    earliest = max(first + 1, bisect_left(cuts.tokens, cuts.tokens[last] - overlap))
    words = (cut for cut in range(earliest, last + 1) if cuts.ranks[cut] < len(PLACES))
    return next(words, min(earliest, last))


def _span(cuts: _Cuts, first: int, after: int, size: int) -> tuple[int, int]:
    """The cuts between which a window lies that ends later than cut ``after``; where the overlap leaves no room for that, it shrinks."""
    for start in range(first, after):
        end = _end(cuts, start, after, size)
        if end > after:
            return start, end
    return after, max(after + 1, _end(cuts, after, after, size))


def _end(cuts: _Cuts, first: int, after: int, size: int) -> int:
    """The best cut later than ``after`` that leaves a window from ``first`` no more than ``size`` tokens, or ``after`` if there is none."""
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
    """The last cut of the best rank, among those far enough into the window for their rank."""
    length = cuts.tokens[furthest] - cuts.tokens[first]
    for rank, (_, part) in enumerate(PLACES):
        least = cuts.tokens[first] + part * length
        for cut in range(furthest, after, -1):
            if cuts.tokens[cut] < least:
                break
            if cuts.ranks[cut] == rank:
                return cut
    return furthest
