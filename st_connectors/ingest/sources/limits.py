"""The maximum size of a document, so that a line of gigabytes is refused alone and never in memory as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from io import TextIOWrapper

from st_connectors.ingest.documents import DocumentError, Place

__all__ = ["MAX_BYTES", "PIECE", "START", "TooLarge", "exceeds", "read_line", "size_in_utf8", "too_large"]

MAX_BYTES = 64 * 1024 * 1024
START = 1024
"""The number of characters that a refusal contains of a document that is too large."""
PIECE = 64 * 1024
"""The number of characters that are read together of a line that is too large."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Stands for a text that is larger than the limit: its first characters, and its size in bytes of UTF-8."""

    start: str
    size: int

    def refusal(self, limit: int, place: Place, extent: str = "") -> DocumentError:
        """Return why the document is refused; ``extent`` says where it ends."""
        value = self.start.encode("utf-8", "surrogateescape")[:START]
        return DocumentError(too_large(self.size, limit, extent), place=place, value=value)


def too_large(size: int, limit: int, extent: str = "") -> str:
    """Return why a document of ``size`` bytes is refused, and what may help."""
    hint = "divide it into several documents, or raise the limit (option max-document)"
    return f"{size:,} bytes are more than the limit of {limit:,}{extent}; {hint}"


def size_in_utf8(text: str) -> int:
    """Return the number of bytes of a text in UTF-8; bytes that could not be decoded count as one each."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def exceeds(text: str, limit: int) -> bool:
    """Return whether a text has more than ``limit`` bytes in UTF-8."""
    return len(text) > limit or (4 * len(text) > limit and size_in_utf8(text) > limit)


def read_line(text: TextIOWrapper, limit: int) -> str | TooLarge:
    """Return the next line with its end, or "" at the end of the stream; a line that is too large is passed over."""
    line = text.readline(limit + 1)
    if not exceeds(line, limit):
        return line
    start, size = line[:START], size_in_utf8(line)
    while line and not line.endswith("\n"):
        line = text.readline(PIECE)
        size += size_in_utf8(line)
    return TooLarge(start, size)
