"""Encode values as SMILE, the binary form of JSON that both engines accept in bulk requests.

A float32 number takes 6 bytes, about half as many as its digits, and is neither formatted here nor parsed by the
server, which also stores the document in this form and returns it as JSON. The format is described at
https://github.com/FasterXML/smile-format-specification; shared names and values, which it allows, are not used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_smile"]

_HEADER, _SEPARATOR = b":)\n\x00", b"\xff"
_START_ARRAY, _END_ARRAY, _START_OBJECT, _END_OBJECT = b"\xf8", b"\xf9", b"\xfa", b"\xfb"
_NULL, _FALSE, _TRUE = b"\x21", b"\x22", b"\x23"
_INT32, _INT64, _FLOAT32, _FLOAT64 = b"\x24", b"\x25", 0x28, b"\x29"
_EMPTY, _END_TEXT = b"\x20", b"\xfc"
_WIDTH = 6
"""The bytes of a float32 number."""


def encode_smile(values: Iterable[object]) -> bytes:
    """Return JSON values as SMILE documents with a separator after each; float32 arrays [n] become lists of numbers.

    Raises ValueError for NaN, infinity and integers beyond 64 bits, and TypeError for values that JSON does not have.
    """
    writer = _Writer()
    for value in values:
        writer.parts.append(_HEADER)
        writer.write(value)
        writer.parts.append(_SEPARATOR)
    return writer.finish()


class _Writer:
    """The parts of documents; all numbers are encoded together at the end, which takes a tenth of the time."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._numbers: list[float] = []
        self._number_places: list[int] = []
        self._arrays: list[NDArray[np.float32]] = []
        self._array_places: list[int] = []

    def write(self, value: object) -> None:
        """Add a value."""
        parts = self.parts
        if isinstance(value, str):
            parts.append(_text(value))
        elif isinstance(value, float):
            self._numbers.append(value)
            self._number_places.append(len(parts))
            parts.append(b"")
        elif isinstance(value, dict):
            parts.append(_START_OBJECT)
            if set(map(type, value.values())) == {float}:
                self._add_weights(value)
            else:
                for key, item in value.items():
                    parts.append(_key(key))
                    self.write(item)
            parts.append(_END_OBJECT)
        elif isinstance(value, np.ndarray):
            self._arrays.append(value)
            self._array_places.append(len(parts) + 1)
            parts += (_START_ARRAY, b"", _END_ARRAY)
        elif isinstance(value, list | tuple):
            parts.append(_START_ARRAY)
            for item in value:
                self.write(item)
            parts.append(_END_ARRAY)
        else:
            parts.append(_scalar(value))

    def _add_weights(self, weights: Mapping[str, float]) -> None:
        """Add keys and numbers in turn, as ``write`` does, without a call for each."""
        pieces = [b""] * (2 * len(weights))
        pieces[0::2] = map(_key, weights)
        first = len(self.parts) + 1
        self._numbers += weights.values()
        self._number_places += range(first, first + len(pieces), 2)
        self.parts += pieces

    def finish(self) -> bytes:
        """Return all documents."""
        for place, number in zip(self._number_places, _encode_numbers(self._numbers), strict=True):
            self.parts[place] = number
        encoded, end = _floats(np.concatenate(self._arrays)) if self._arrays else b"", 0
        for place, array in zip(self._array_places, self._arrays, strict=True):
            begin, end = end, end + _WIDTH * len(array)
            self.parts[place] = encoded[begin:end]
        return b"".join(self.parts)


def _encode_numbers(numbers: list[float]) -> list[bytes]:
    """Return each number as float32 if it is one, else as a double."""
    doubles = np.array(numbers, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        singles = doubles.astype(np.float32)
    is_double = np.flatnonzero((singles != doubles) & np.isfinite(doubles))
    singles[is_double] = 0.0
    encoded = _floats(singles)
    pieces = [encoded[at : at + _WIDTH] for at in range(0, len(encoded), _WIDTH)]
    for at in is_double.tolist():
        pieces[at] = _double(numbers[at])
    return pieces


def _floats(array: NDArray[np.float32]) -> bytes:
    """Return float32 numbers [n] of 6 bytes each: a token, 4 bits, and four times 7 bits."""
    if not np.isfinite(array).all():
        raise ValueError("JSON has neither NaN nor infinity")
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    encoded = np.empty(len(bits), [("upper", "<u4"), ("lower", "<u2")])
    encoded["upper"] = _FLOAT32 | bits >> 20 & 0xF00 | bits >> 5 & 0x7F0000 | bits << 10 & 0x7F000000
    encoded["lower"] = bits >> 7 & 0x7F | (bits & 0x7F) << 8
    return encoded.tobytes()


def _double(number: float) -> bytes:
    (bits,) = struct.unpack(">Q", struct.pack(">d", number))
    return _FLOAT64 + bytes(bits >> shift & 0x7F for shift in range(63, -1, -7))


def _scalar(value: object) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        return _whole_number(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _whole_number(value: int) -> bytes:
    """Return an integer in 7 bits a byte, but 6 in the last one, whose highest bit is set.

    The token states whether it has 32 or 64 bits; the servers read at least 5 bytes of an integer of 64 bits.
    """
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"an integer has at most 64 bits, not {value.bit_length() + 1}")
    rest = 2 * value if value >= 0 else -2 * value - 1
    encoded = [0x80 | rest & 0x3F]
    rest >>= 6
    while rest:
        encoded.append(rest & 0x7F)
        rest >>= 7
    return (_INT32 if -(2**31) <= value < 2**31 else _INT64) + bytes(reversed(encoded))


def _text(text: str) -> bytes:
    encoded = text.encode()
    size = len(encoded)
    if not size:
        return _EMPTY
    if text.isascii():
        return bytes((0x40 + size - 1,)) + encoded if size <= 64 else b"\xe0" + encoded + _END_TEXT
    return bytes((0x80 + size - 2,)) + encoded if size <= 65 else b"\xe4" + encoded + _END_TEXT


@lru_cache(maxsize=32_768)
def _key(text: str) -> bytes:
    encoded = text.encode()
    size = len(encoded)
    if not size:
        return _EMPTY
    if text.isascii() and size <= 64:
        return bytes((0x80 + size - 1,)) + encoded
    if not text.isascii() and size <= 57:
        return bytes((0xC0 + size - 2,)) + encoded
    return b"\x34" + encoded + _END_TEXT
