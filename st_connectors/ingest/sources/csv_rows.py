"""The rows of CSV text, of which none is larger than a limit in memory."""

from __future__ import annotations

import csv
import re
from enum import Enum, auto
from io import TextIOWrapper

from st_connectors.ingest.sources.encodings import Decoder
from st_connectors.ingest.sources.limits import PIECE, START, TooLarge, exceeds, size_in_utf8

__all__ = ["CsvRows", "RowTooLarge"]


class RowTooLarge(Exception):
    """A row is larger than the limit and was passed over."""

    def __init__(self, row: TooLarge) -> None:
        """Store what is known of the row."""
        super().__init__(row)
        self.row = row


class CsvRows:
    """Read CSV text row by row.

    The csv module takes line after line while a quote is open. Once a row is too large, it receives RowTooLarge instead
    of a line, after which it starts anew; the row has been read to its end.
    """

    def __init__(self, text: TextIOWrapper, decoder: Decoder, *, delimiter: str, quote: str, limit: int) -> None:
        """Store the text; ``quote`` is empty if quotes are ordinary characters, and ``limit`` is in bytes per row."""
        self._text = text
        self._decoder = decoder
        self._limit = limit
        self._quotes = _Quotes(delimiter, quote)
        self._start = ""  # the first line of the row
        self._size = 0  # the bytes of the row so far
        self.line = 0
        """The number of lines read so far."""
        csv.field_size_limit(max(csv.field_size_limit(), min(limit, 2**31 - 1)))  # the default is too small for a book
        self._reader = csv.reader(
            iter(self._next_line, None),
            strict=True,
            delimiter=delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        )

    def read(self) -> list[str] | None:
        """Return the cells of the next row, empty for a blank line, or None at the end.

        Bytes that cannot be decoded are lone surrogates, so that only their row is refused. Raises csv.Error for a row
        that is not CSV, and RowTooLarge.
        """
        self._size = 0
        return next(self._reader, None)

    def _next_line(self) -> str:
        line = self._text.readline(self._limit - self._size + 1)
        if not line:
            raise StopIteration
        self.line += 1
        if not self._size:
            self._start = line
        if exceeds(line, self._limit - self._size):
            raise RowTooLarge(self._pass_over(line))
        self._size += size_in_utf8(line)
        return self._decoder.repair(line) or line

    def _pass_over(self, line: str) -> TooLarge:
        """Read the row to its end, of which ``line`` is a line or the start of one."""
        start, size = self._start[:START], self._size + size_in_utf8(line)
        state = self._quotes.follow(line, _State.QUOTED if self._size else _State.START)
        while line and (state is _State.QUOTED or not line.endswith("\n")):
            is_new = line.endswith("\n")
            line = self._text.readline(PIECE)
            self.line += is_new and line != ""
            size += size_in_utf8(line)
            state = self._quotes.follow(line, state)
        return TooLarge(start, size)


class _State(Enum):
    """Where in a row a text ends."""

    START = auto()
    """At the start of a cell."""
    PLAIN = auto()
    QUOTED = auto()
    """Inside of quotes, where lines and delimiters belong to the cell."""
    CLOSED = auto()
    """After a quote that ends the quotes, unless another one follows."""


class _Quotes:
    """Follow the quotes of a row without its cells."""

    def __init__(self, delimiter: str, quote: str) -> None:
        marks = re.escape(delimiter + quote)
        self._parts = re.compile(f"[{marks}]|[^{marks}]+")
        self._delimiter = delimiter
        self._quote = quote

    def follow(self, text: str, state: _State) -> _State:
        """Return where a text ends that begins in ``state``."""
        for part in self._parts.finditer(text):
            state = self._next(part[0], state)
        return state

    def _next(self, part: str, state: _State) -> _State:
        if part == self._quote:
            is_opening = state in {_State.START, _State.CLOSED}
            return _State.QUOTED if is_opening else _State.CLOSED if state is _State.QUOTED else state
        if state is _State.QUOTED:
            return state
        return _State.START if part == self._delimiter else _State.PLAIN
