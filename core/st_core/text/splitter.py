"""Split a long text into overlapping windows with a limited number of tokens.

Each window is an unchanged part of the text, with its position. A window ends, in order of preference, at the end of a
paragraph, a sentence or a word, or else between two tokens. The end of a paragraph is accepted in the second half of
the longest possible window, and the end of a sentence in its last third. Every character is in a window. Each window is
tokenized separately to check that it does not exceed the limit, because a part of a text can have other tokens on its
own than within the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Offsets", "Window", "offsets_of", "split"]

Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""A function from a text to the span of each token, without special tokens: (start, end), in characters."""

PLACES = (
    (re.compile(r"\s*\n[ \t\r]*\n\s*"), 1 / 2),
    (re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\s*\n\s*"), 2 / 3),  # noqa: RUF001 -- full-width marks are meant
    (re.compile(r"\s+"), 0.0),
)
"""The boundaries at which a window may end, most preferred first.

Each has the fraction of the longest possible window from which on it is accepted.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text: its content, its start and end in characters, and the number of windows before it."""

    text: str
    start: int
    end: int
    number: int


def offsets_of(tokenizer: Tokenizer) -> Offsets:
    """Return a function that computes the spans of tokens with a copy of a tokenizer; safe in threads.

    The copy neither truncates nor pads. It is made by the first call, because short texts need none.
    """

    @cache
    def copied() -> Tokenizer:
        from tokenizers import Tokenizer

        own = Tokenizer.from_str(tokenizer.to_str())
        own.no_truncation()
        own.no_padding()
        return own

    def offsets(text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = copied().encode(text, add_special_tokens=False).offsets
        return spans

    return offsets


def split(text: str, offsets: Offsets, *, size: int, overlap: int = 0) -> list[Window]:
    """Return windows of at most ``size`` tokens; each begins about ``overlap`` tokens before the end of the previous.

    A text without tokens has one window. A character of more than ``size`` tokens is a window of its own. Raises
    ValueError unless 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"expected an overlap from 0 to {size - 1}, one less than the size, got {overlap}")
    spans = offsets(text)
    if len(spans) <= size:
        return [Window(text, 0, len(text), 0)]
    cuts = _Cuts.of(text, offsets, spans)
    windows: list[Window] = []
    first = last = 0
    while cuts.characters[last] < len(text):
        first, last = _span(cuts, _next_start(cuts, first, last, overlap), last, size)
        start, end = cuts.characters[first], cuts.characters[last]
        windows.append(Window(text[start:end], start, end, len(windows)))
    return windows


@dataclass(frozen=True, slots=True)
class _Cuts:
    """The positions at which a text can be cut, in parallel lists.

    ``characters`` is the position of each cut in the text, ``tokens`` the number of tokens before it, and ``ranks`` the
    index in PLACES of the boundary there.
    """

    text: str
    offsets: Offsets
    characters: list[int]
    tokens: list[int]
    ranks: list[int]

    @classmethod
    def of(cls, text: str, offsets: Offsets, spans: Sequence[tuple[int, int]]) -> _Cuts:
        """Return the positions at which a text can be cut: its start, its end, and each token that overlaps no earlier.

        ``spans`` are the start and end of each token, in characters; ``offsets`` computes those of other texts.
        """
        reached = [0, *accumulate((end for _, end in spans), max)]
        clean = [
            number for number, (start, _) in enumerate(spans) if start >= reached[number] and 0 < start < len(text)
        ]
        characters = [spans[number][0] for number in clean]
        ranks = _ranks(text)
        distinct = [spot for spot in range(len(clean)) if spot == 0 or characters[spot] > characters[spot - 1]]
        return cls(
            text,
            offsets,
            [0, *(characters[spot] for spot in distinct), len(text)],
            [0, *(clean[spot] for spot in distinct), len(spans)],
            [0, *(ranks[characters[spot]] for spot in distinct), 0],
        )

    def alone(self, first: int, last: int) -> int:
        """Return the number of tokens of the text between two cuts when it is tokenized separately."""
        return len(self.offsets(self.text[self.characters[first] : self.characters[last]]))


def _ranks(text: str) -> bytearray:
    """Return, for each character, the rank of a cut before it; the rank is len(PLACES) if there is no boundary."""
    ranks = bytearray([len(PLACES)]) * (len(text) + 1)
    for rank in reversed(range(len(PLACES))):
        for match in PLACES[rank][0].finditer(text):
            start, end = match.span()
            ranks[start : end + 1] = bytes([rank]) * (end + 1 - start)
    return ranks


def _next_start(cuts: _Cuts, first: int, last: int, overlap: int) -> int:
    """Return the cut at which the next window starts, for a window from ``first`` to ``last``.

    It is the first start of a word at most ``overlap`` tokens before the end of that window or, if there is none, the
    cut ``overlap`` tokens before the end.
    """
    if last == 0:
        return 0
    earliest = max(first + 1, bisect_left(cuts.tokens, cuts.tokens[last] - overlap))
    words = (cut for cut in range(earliest, last + 1) if cuts.ranks[cut] < len(PLACES))
    return next(words, min(earliest, last))


def _span(cuts: _Cuts, first: int, after: int, size: int) -> tuple[int, int]:
    """Return the first and the last cut of the next window, which must end after the cut ``after``.

    The window starts at ``first``, or later, with a smaller overlap, if it could not end after ``after`` otherwise.
    """
    for start in range(first, after):
        end = _end(cuts, start, after, size)
        if end > after:
            return start, end
    return after, max(after + 1, _end(cuts, after, after, size))


def _end(cuts: _Cuts, first: int, after: int, size: int) -> int:
    """Return the best end of a window that starts at ``first`` and has at most ``size`` tokens.

    The end is after the cut ``after``; if there is no such cut, ``after`` is returned.
    """
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
    """Return the last cut with the best rank among the cuts that are far enough into the window for their rank."""
    length = cuts.tokens[furthest] - cuts.tokens[first]
    for rank, (_, part) in enumerate(PLACES):
        least = cuts.tokens[first] + part * length
        for cut in range(furthest, after, -1):
            if cuts.tokens[cut] < least:
                break
            if cuts.ranks[cut] == rank:
                return cut
    return furthest
