"""Read SMILE, as the servers do, by its specification: https://github.com/FasterXML/smile-format-specification."""

from __future__ import annotations

import json
import struct
from typing import Any

__all__ = ["read_bulk"]


def read_bulk(body: bytes) -> list[Any]:
    """Return the values of a bulk request, in SMILE or as JSON lines."""
    if not body.startswith(b":)\n"):
        return [json.loads(line) for line in body.splitlines()]
    *documents, rest = body.split(b"\xff")
    assert rest == b""
    return [_Reader(document).document() for document in documents]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def document(self) -> Any:
        assert self._take(4) == b":)\n\x00"
        value = self._value(self._byte())
        assert self._at == len(self._data)
        return value

    def _take(self, size: int) -> bytes:
        self._at += size
        assert self._at <= len(self._data)
        return self._data[self._at - size : self._at]

    def _byte(self) -> int:
        return self._take(1)[0]

    def _long_text(self) -> str:
        text = self._take(self._data.index(b"\xfc", self._at) - self._at).decode()
        self._at += 1
        return text

    def _value(self, token: int) -> Any:
        match token:
            case 0x20:
                return ""
            case 0x21 | 0x22 | 0x23:
                return (None, False, True)[token - 0x21]
            case 0x24:
                return self._whole(1, 5)
            case 0x25:
                return self._whole(5, 10)
            case 0x28:
                return struct.unpack(">f", struct.pack(">I", self._bits(5)))[0]
            case 0x29:
                return struct.unpack(">d", struct.pack(">Q", self._bits(10)))[0]
            case 0xE0 | 0xE4:
                return self._long_text()
            case 0xF8:
                return self._array()
            case 0xFA:
                return self._object()
        if 0x40 <= token < 0x80:
            return self._take(token - 0x40 + 1).decode("ascii")
        assert 0x80 <= token < 0xC0, hex(token)
        return self._take(token - 0x80 + 2).decode()

    def _array(self) -> list[Any]:
        values = []
        while (token := self._byte()) != 0xF9:
            values.append(self._value(token))
        return values

    def _object(self) -> dict[str, Any]:
        values = {}
        while (token := self._byte()) != 0xFB:
            key = self._key(token)
            values[key] = self._value(self._byte())
        return values

    def _key(self, token: int) -> str:
        if token == 0x20:
            return ""
        if token == 0x34:
            return self._long_text()
        if 0x80 <= token < 0xC0:
            return self._take(token - 0x80 + 1).decode("ascii")
        assert 0xC0 <= token < 0xF8, hex(token)
        return self._take(token - 0xC0 + 2).decode()

    def _bits(self, size: int) -> int:
        bits = 0
        for each in self._take(size):
            assert each < 0x80
            bits = bits << 7 | each
        return bits

    def _whole(self, least: int, most: int) -> int:
        rest, start = 0, self._at
        while (each := self._byte()) < 0x80:
            rest = rest << 7 | each
        assert least <= self._at - start <= most
        rest = rest << 6 | each & 0x3F
        return rest >> 1 if rest % 2 == 0 else -(rest >> 1) - 1
