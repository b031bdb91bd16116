"""Decode the text of sources: UTF-8 by default, UTF-16 and UTF-32 after a byte order mark, or a named encoding."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase, TextIOWrapper
from typing import IO, cast

from st_connectors.ingest.sources.notes import Notes

__all__ = ["BUFFER", "Decoder", "as_buffered", "check_encoding", "is_undecoded"]

BUFFER = 64 * 1024
GUESS = "cp1252"
"""The encoding that is tried if a text is not UTF-8: Windows' own for Western European languages."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNDECODED = re.compile("[\udc80-\udcff]")
_NOT_WESTERN = re.compile("[\x00-\x08\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d\xfe\xff]|[\x80-\xff]{3}")
"""Bytes, as characters, that a Western European text in cp1252 lacks: control characters, long runs of accents."""


def as_buffered(stream: IO[bytes]) -> BufferedReader:
    """Return a stream that can be looked into without reading it."""
    return stream if isinstance(stream, BufferedReader) else BufferedReader(cast("RawIOBase", stream), BUFFER)


def check_encoding(name: str) -> str:
    """Return the name of a text encoding that Python has; raise ValueError for another."""
    try:
        info = codecs.lookup(name)
    except LookupError as error:
        raise ValueError(
            f"unknown encoding {name!r}; expected one such as utf-8, utf-16, cp1252 or shift_jis"
        ) from error
    if not getattr(info, "_is_text_encoding", True):
        raise ValueError(
            f"{name!r} is not an encoding of text; expected one such as utf-8, utf-16, cp1252 or shift_jis"
        )
    return info.name


def is_undecoded(text: str) -> bool:
    """Return whether a text contains lone surrogates that stand for bytes that could not be decoded."""
    return not text.isascii() and _UNDECODED.search(text) is not None


class Decoder:
    """The decoding of one source.

    If no encoding is named, a text that is not UTF-8 is tried as cp1252. The guess is used if the bytes look like words
    and no text before them has characters beyond ASCII in UTF-8; a note says so. A text that is too short to decide,
    such as ``Öl``, is judged with the other lines at the start of the source that are not UTF-8.
    """

    def __init__(self, encoding: str | None, notes: Notes, name: str) -> None:
        """Store the named encoding, where to say a guess, and the name of the source."""
        self._notes = notes
        self._name = name
        self._is_named = encoding is not None
        self._is_utf8 = False
        self._is_guessed = False
        self._sample = b""
        self.encoding = _with_mark(encoding)
        """The encoding in which the source is read first."""
        self.has_failed = False
        """Whether a text had bytes that could not be decoded."""

    @property
    def shown(self) -> str:
        """The name of the encoding in messages."""
        return "UTF-8" if self.encoding == "utf-8-sig" else self.encoding

    @property
    def reason(self) -> str:
        """Why a text with bytes that cannot be decoded is refused, and what may help."""
        hint = "" if self._is_named else ": if the source has another encoding, name it"
        return f"not {self.shown}{hint}"

    def open(self, stream: BufferedReader) -> TextIOWrapper:
        """Return a text stream, in which bytes that cannot be decoded are lone surrogates."""
        if not self._is_named:
            self._sample = stream.peek(BUFFER)
            self.encoding = next((name for mark, name in _MARKS if self._sample.startswith(mark)), self.encoding)
        return TextIOWrapper(stream, self.encoding, "surrogateescape", newline="\n")

    @contextmanager
    def reading(self, stream: BufferedReader) -> Iterator[TextIOWrapper]:
        """Yield a text stream as ``open`` does; raise ValueError if the rest of it cannot be decoded."""
        text = self.open(stream)
        try:
            yield text
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._name}: not {self.shown}: {error.reason}; pass the right encoding") from error
        finally:
            if not stream.closed:  # detached, so that the end of this reader does not close it
                text.detach()

    def decode(self, raw: bytes) -> str:
        """Decode a whole text; raise UnicodeDecodeError."""
        encoding = self.encoding
        if not self._is_named:
            encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), encoding)
        text = self.repair(raw.decode(encoding, "surrogateescape"))
        return raw.decode(encoding) if text is None else text

    def follow(self, text: object) -> None:
        """Take note of a text that is skipped, which decides how later texts are decoded."""
        if isinstance(text, str):
            self.repair(text)

    def repair(self, text: str) -> str | None:
        """Return a text without undecoded bytes, if necessary by the guessed encoding; None if that fails."""
        if text.isascii():
            return text
        if not is_undecoded(text):
            self._is_utf8 = True
            return text
        can_guess = self.encoding == "utf-8-sig" and not self._is_named and (self._is_guessed or not self._is_utf8)
        repaired = self._guess(text.encode("utf-8", "surrogateescape")) if can_guess else None
        self.has_failed = self.has_failed or repaired is None
        return repaired

    def _guess(self, raw: bytes) -> str | None:
        if not self._is_guessed and not _is_western(raw) and not self._is_western_in_sample(raw):
            return None
        try:
            text = raw.decode(GUESS)
        except UnicodeDecodeError:
            return None
        if not self._is_guessed:
            self._is_guessed = True
            self._notes.add(f"{self._name}: not UTF-8; read as {GUESS}, which is a guess: {_excerpt(text)!r}")
        return text

    def _is_western_in_sample(self, raw: bytes) -> bool:
        """Return whether a short text looks Western European together with other lines that are not UTF-8."""
        if _NOT_WESTERN.search(raw.decode("latin-1")):
            return False
        *lines, _cut_off = self._sample.split(b"\n")
        others = b"\n".join(line for line in lines if not _is_utf8(line))
        return len(others) > len(raw) and _is_western(others)


def _with_mark(encoding: str | None) -> str:
    """Return the encoding that also accepts a byte order mark at the start."""
    return "utf-8-sig" if encoding is None or codecs.lookup(encoding).name == "utf-8" else encoding


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_western(raw: bytes) -> bool:
    """Return whether bytes look like a Western European text in cp1252: mostly ASCII letters, with single accents."""
    text = raw.decode("latin-1")
    high = sum(character > "\x7f" for character in text)
    letters = sum(character.isascii() and character.isalpha() for character in text)
    return not _NOT_WESTERN.search(text) and 4 * high <= letters


def _excerpt(text: str) -> str:
    """Return the surroundings of the first character that is not ASCII."""
    at = next(position for position, character in enumerate(text) if not character.isascii())
    return text[max(0, at - 20) : at + 20].strip()
