"""Read JSON files that are an array of objects, or objects one after another, without holding the file in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum, auto
from io import BufferedReader
from typing import IO

from st_connectors.ingest.documents import DocumentError, Place
from st_connectors.ingest.sources.encodings import BUFFER, Decoder, as_buffered
from st_connectors.ingest.sources.jsonl import count_jsonl, json_document, read_jsonl
from st_connectors.ingest.sources.limits import START, TooLarge, exceeds, size_in_utf8
from st_connectors.ingest.sources.rows import Read, Reading

__all__ = ["count_json", "read_json"]

_STRING = r'"(?:[^"\\]++|\\.)*+"'
_BRACKET = re.compile(rf'(?:[^"\[\]{{}}]++|{_STRING})*+(["\[\]{{}}])', re.DOTALL)
"""Text up to a bracket, or up to the quote of an unfinished string; brackets in strings are passed over."""
_COMMA = re.compile(rf'(?:[^"\[\]{{}},]++|{_STRING})*+(["\[\]{{}},])', re.DOTALL)
"""The same, up to a comma too."""


def read_json(stream: IO[bytes], reading: Reading, name: str) -> Read:
    """Yield the documents of an array's elements, of objects one after another, or of lines.

    An element that is not JSON is refused alone if its braces and quotes are balanced.
    """
    buffered = as_buffered(stream)
    if _has_lines(buffered, reading):
        yield from read_jsonl(buffered, reading, name)
        return
    decoder = Decoder(reading.encoding, reading.notes, name)
    for number, value in enumerate(_values(buffered, decoder, reading.max_bytes), 1):
        place = Place(name, number, "element")
        if reading.skip.one():
            decoder.follow(value)
        elif isinstance(value, DocumentError):
            yield DocumentError(value.reason, place=place, value=value.value)
        else:
            yield json_document(value, decoder, reading, place)


def count_json(stream: IO[bytes], reading: Reading, name: str) -> int:
    """Return the number of elements, objects or lines."""
    buffered = as_buffered(stream)
    if _has_lines(buffered, reading):
        return count_jsonl(buffered, reading, name)
    return sum(1 for _ in _values(buffered, Decoder(reading.encoding, reading.notes, name), reading.max_bytes))


def _has_lines(stream: BufferedReader, reading: Reading) -> bool:
    """Return whether the first line of a stream is a complete object and is followed by another line."""
    first, end, rest = stream.peek(BUFFER).partition(b"\n")
    try:
        value = json.loads(first.decode(reading.encoding or "utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(end) and bool(rest.strip())


def _values(stream: BufferedReader, decoder: Decoder, limit: int) -> Iterator[str | TooLarge | DocumentError]:
    """Yield the text of each value; an error for a file that is cut off, or that goes on after its array."""
    largest = max(BUFFER, limit // 8)
    with decoder.reading(stream) as text:
        splitter = _Splitter(limit)
        size = BUFFER
        while chunk := text.read(size):
            values = splitter.feed(chunk)
            yield from values
            # Doubled, because the text of an unfinished value is joined to the next chunk.
            size = BUFFER if values else min(2 * size, largest)
        yield from splitter.finish()


class _State(Enum):
    START = auto()
    ARRAY = auto()
    VALUES = auto()
    END = auto()


class _Splitter:
    """Split JSON text, which arrives in chunks, into the elements of an array, or into the outermost values.

    An unfinished value that is larger than the limit is passed over: its brackets and quotes are followed to its end.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._state = _State.START
        self._text = ""  # what was not returned yet
        self._at = 0  # where the search for marks goes on
        self._depth = 0
        self._has_comma = False
        self._start = ""  # of a value that is passed over
        self._passed = 0  # the bytes of it that were dropped

    def feed(self, chunk: str) -> list[str | TooLarge]:
        """Return the texts of the values that the chunk completes."""
        if self._state is _State.END and self._text.strip():
            return []  # what comes after the array is an error, whatever it is
        self._text += chunk
        if self._state is _State.START:
            self._begin()
        values: list[str | TooLarge] = []
        start = 0
        while match := self._next_mark():
            mark = match[1]
            if mark == '"':  # the string goes on in the next chunk
                self._at = match.start(1)
                break
            self._at = match.end()
            end = self._end_of_value(mark, match)
            if end is None:
                continue
            value = self._text[start:end]
            if value.strip() or self._passed or mark == "," or self._has_comma:
                values.append(self._finished(value))
            self._has_comma = mark == ","
            start = self._at
        else:
            self._at = len(self._text)
        self._text, self._at = self._text[start:], self._at - start
        if self._passed or exceeds(self._text.lstrip(), self._limit):
            self._pass_over()
        return values

    def _finished(self, value: str) -> str | TooLarge:
        """Return a value without the spaces around it, or what is known of it if it is too large."""
        if self._passed:
            large = TooLarge(self._start, self._passed + size_in_utf8(value.rstrip()))
            self._start, self._passed = "", 0
            return large
        value = value.strip()
        return TooLarge(value[:START], size_in_utf8(value)) if exceeds(value, self._limit) else value

    def _pass_over(self) -> None:
        """Drop the text of an unfinished value; of an unfinished string, its quote and half an escape are retained."""
        if self._state is _State.END:
            self._text = self._text.lstrip()[:START]
            return
        value = self._text if self._passed else self._text.lstrip()
        string = self._text[self._at :]
        is_in_escape = (len(string) - len(string.rstrip("\\"))) % 2 == 1
        rest = string[:1] + ("\\" if is_in_escape else "")
        self._start = self._start or value[:START]
        self._passed += size_in_utf8(value) - len(rest)
        self._text, self._at = rest, 0

    def _next_mark(self) -> re.Match[str] | None:
        """Return the text up to the next mark, in its group 1; None if there is none."""
        if self._state is _State.ARRAY:
            return (_BRACKET if self._depth else _COMMA).match(self._text, self._at)
        return _BRACKET.match(self._text, self._at) if self._state is _State.VALUES else None

    def _begin(self) -> None:
        """Decide by the first character whether the text is an array."""
        self._text = self._text.lstrip()
        if self._text:
            self._state = _State.ARRAY if self._text[0] == "[" else _State.VALUES
            self._text = self._text.removeprefix("[")

    def _end_of_value(self, mark: str, match: re.Match[str]) -> int | None:
        """Follow a mark, and return the end of the value that it ends, if it ends one."""
        is_array = self._state is _State.ARRAY
        if mark in "[{":
            self._depth += 1
        elif mark == ",":
            return match.start(1) if is_array and self._depth == 0 else None
        elif self._depth:
            self._depth -= 1
            return match.end() if not is_array and self._depth == 0 else None
        elif is_array and mark == "]":
            self._state = _State.END
            return match.start(1)
        return None

    def finish(self) -> Iterator[str | TooLarge | DocumentError]:
        """Yield what is left at the end of the file: an unfinished value, or text after the array."""
        match self._state:
            case _State.ARRAY:
                yield DocumentError("the file ends inside the array", value=self._start or self._text)
            case _State.END if self._text.strip():
                yield DocumentError("text after the end of the array", value=self._text)
            case _State.VALUES if self._passed or self._text.strip():
                yield self._finished(self._text)
            case _:
                pass
