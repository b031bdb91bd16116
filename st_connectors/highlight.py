"""Find the parts of a hit's text that matched a query, and the passage that contains most of them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from st_connectors import bm25

__all__ = ["Highlight", "collapse", "marked", "passage", "term_highlights", "word_highlights"]


@dataclass(frozen=True, slots=True)
class Highlight:
    """A part of a hit's text that matched a term of a field.

    ``start`` and ``end`` are offsets in characters of the text, and ``weight`` is the share of the term in the match,
    at most 1, by which a passage is selected.
    """

    field: str
    term: str
    start: int
    end: int
    weight: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"field": self.field, "term": self.term, "start": self.start, "end": self.end}


def word_highlights(field: str, text: str, weights: Mapping[str, float]) -> list[Highlight]:
    """Return the words of a text that are among the normalised words in ``weights``, in order."""
    highlights = [
        Highlight(field, word, start, end, weights[word]) for word, start, end in bm25.spans(text) if word in weights
    ]
    return sorted(highlights, key=lambda each: (each.start, each.end))


def term_highlights(field: str, text: str, weights: Mapping[str, float], tokenizer: Any) -> list[Highlight]:
    """Return the words of a text of which a token is among the terms in ``weights``, in order.

    ``tokenizer`` is a tokenizer of the tokenizers library; None for a model without one, whose terms are words.
    """
    if tokenizer is None:
        return word_highlights(field, text, weights)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    words, tokens = encoding.word_ids, encoding.tokens
    best: dict[int, str] = {}
    for token, word in zip(tokens, words, strict=True):
        if word is not None and token in weights and weights[token] > weights.get(best.get(word, ""), 0.0):
            best[word] = token
    # Not by word_to_chars of the encoding, which looks through all tokens each time.
    spans: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(words, encoding.offsets, strict=True):
        if word in best:
            first, last = spans.get(word, (start, end))
            spans[word] = min(first, start), max(last, end)
    return [Highlight(field, best[word], *_trimmed(text, *span), weights[best[word]]) for word, span in spans.items()]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the white space that some tokenizers count to the word after it."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


def passage(text: str, highlights: Sequence[Highlight], width: int) -> tuple[int, int]:
    """Return the start and end of the passage of at most ``width`` characters with the heaviest distinct terms.

    It begins and ends between words if words are shorter than the passage. Without highlights it is the beginning of
    the text.
    """
    start = _best_start(highlights, width)
    if len(text) <= width:
        return 0, len(text)
    reach = _reach(highlights, start, width)
    spare = max(width - reach, 0)
    first = 0 if start + reach <= width else max(0, min(start - spare // 3, len(text) - width))
    last = min(first + width, len(text))
    return _at_word(text, first, min(start, last)), _at_word_end(text, last, start + reach)


def _best_start(highlights: Sequence[Highlight], width: int) -> int:
    """Return the start of the text, or of the highlight, from which a passage has the heaviest distinct terms."""
    starts = [0, *(each.start for each in highlights)]
    firsts = [0, *range(len(highlights))]
    scored = [
        (sum({each.term: each.weight for each in _within(highlights, first, start, width)}.values()), -start)
        for first, start in zip(firsts, starts, strict=True)
    ]
    return -max(scored)[1]


def _within(highlights: Sequence[Highlight], first: int, start: int, width: int) -> Iterator[Highlight]:
    """Yield the highlights from position ``first`` on that fit into a passage from ``start`` on."""
    for at in range(first, len(highlights)):
        each = highlights[at]
        if each.start >= start + width:
            return
        if each.end <= start + width:
            yield each


def _reach(highlights: Sequence[Highlight], start: int, width: int) -> int:
    """Return the number of characters from ``start`` to the end of the last highlight that fits into ``width``."""
    return max(
        (each.end - start for each in highlights if start <= each.start and each.end <= start + width), default=0
    )


def _at_word(text: str, first: int, latest: int) -> int:
    """Return the first beginning of a word from ``first`` on, but at most ``latest``."""
    if first == 0 or text[first - 1].isspace():
        return first
    at = first
    while at < latest and not text[at - 1].isspace():
        at += 1
    return at


def _at_word_end(text: str, last: int, earliest: int) -> int:
    """Return the last end of a word up to ``last``; ``last`` itself if there is none after ``earliest``."""
    if last == len(text) or text[last].isspace():
        return last
    at = last
    while at > earliest and not text[at - 1].isspace():
        at -= 1
    trimmed = len(text[:at].rstrip())
    return trimmed if trimmed > earliest else last


def marked(text: str, start: int, end: int, highlights: Collection[Highlight]) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a passage with whether they are highlighted; overlapping highlights are joined."""
    at = start
    for each in sorted(highlights, key=lambda each: (each.start, -each.end)):
        first, last = max(each.start, at), min(each.end, end)
        if first >= last:
            continue
        if first > at:
            yield text[at:first], False
        yield text[first:last], True
        at = last
    if at < end:
        yield text[at:end], False


def collapse(text: str, highlights: Collection[Highlight]) -> tuple[str, list[Highlight]]:
    """Return a text on one line, with single spaces between its words, and the highlights at their places in it."""
    starts: list[int] = []
    shifts: list[int] = []
    words: list[str] = []
    length = 0
    for match in re.finditer(r"\S+", text):
        length += bool(words)
        starts.append(match.start())
        shifts.append(length - match.start())
        words.append(match.group())
        length += len(match.group())

    def moved(at: int) -> int:
        return at + shifts[bisect_right(starts, at) - 1]

    return " ".join(words), [
        replace(each, start=moved(each.start), end=moved(each.end - 1) + 1)
        for each in highlights
        if 0 <= each.start < each.end <= len(text)
    ]
