"""What a row's columns look like: names that Milvus takes, the payload exact, and a copy of each filterable field in columns made for its filters.

Milvus has no comparison of list elements, drops the order of JSON keys, and thinks in three values where a column may be null. So the payload is
JSON text cut into pieces, no column is ever null, and numbers and dates are kept as the least and the greatest value of the field, which
answers every filter on a single value or a pair. What lies between the two in longer lists is kept as hexadecimal prefixes: a range is then a
set of at most a few hundred prefixes, one of which some element begins with just when it lies within (a trie, as in Lucene's first numeric fields).

Lists are arrays, which servers index, or text: Milvus Lite evaluates functions on arrays row by row in Python, and LIKE on text by Arrow, 15 times as
fast. The text is hexadecimal words between bars, so that no value can be taken for a part of another, nor for a wildcard.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from st_connectors.filters import parse_date
from st_connectors.schema import FilterKind, Schema

__all__ = [
    "CAPACITY",
    "ID",
    "LONGEST",
    "PAYLOAD",
    "Kept",
    "Layout",
    "Span",
    "collection_name",
    "cover",
    "filter_values",
    "has_column",
    "join",
    "number",
    "pieces",
    "safe",
    "text_column",
    "token",
    "vector_column",
]

ID = "st_id"
PAYLOAD = "st_payload"

LONGEST = 65_535
"""Bytes that a VARCHAR, or an element of an array of them, holds at most."""
CAPACITY = 4096
"""Elements that an array holds at most."""
_PIECE = LONGEST // 4
"""Characters of a payload's piece: UTF-8 takes at most four bytes for each."""

_PLAIN = re.compile(r"(?!x_)[A-Za-z_][A-Za-z0-9_]{0,63}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INT64 = range(-(2**63), 2**63)


@lru_cache(maxsize=1024)
def safe(name: str) -> str:
    """A name of letters, digits and underscores: plain ones as they are, others as a readable part and a hash."""
    if _PLAIN.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:32]
    return f"x_{readable}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def collection_name(name: str) -> str:
    """The name under which Milvus knows a collection."""
    return safe(name)


def vector_column(field: str) -> str:
    """The column of a field's vectors; of a text field, the one that the BM25 function fills."""
    return f"vec_{safe(field)}"


def has_column(field: str) -> str:
    """The column that says whether a record has a vector in an optional field."""
    return f"has_{safe(field)}"


def text_column(field: str) -> str:
    """The column of a text field's text."""
    return f"text_{safe(field)}"


def pieces(payload: Mapping[str, Any]) -> list[str]:
    """A payload as JSON text, cut into pieces that fit a VARCHAR."""
    text = orjson.dumps(payload).decode()
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def join(kept: Sequence[str]) -> dict[str, Any]:
    """The payload again."""
    payload: dict[str, Any] = orjson.loads("".join(kept))
    return payload


@dataclass(frozen=True, slots=True)
class Span:
    """The least and the greatest number of a kind; a row without any has ``least`` and ``most`` the wrong way round."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection is laid out: the index of its dense vectors, FLAT or HNSW, and whether lists are kept as text."""

    dense: str = "HNSW"
    packed: bool = False


_WHOLE = Span(-(2**63), 2**63 - 1)
_REAL = Span(-sys.float_info.max, sys.float_info.max)


@dataclass(frozen=True, slots=True)
class Kept:
    """The columns of one filterable field."""

    kind: FilterKind
    name: str
    packed: bool = False

    @property
    def words(self) -> str:
        """The keywords."""
        return f"kw_{safe(self.name)}"

    @property
    def yes(self) -> str:
        """Whether true is among the values."""
        return f"yes_{safe(self.name)}"

    @property
    def no(self) -> str:
        """Whether false is among the values."""
        return f"no_{safe(self.name)}"

    @property
    def low(self) -> str:
        """The least number."""
        return f"lo_{safe(self.name)}"

    @property
    def high(self) -> str:
        """The greatest number."""
        return f"hi_{safe(self.name)}"

    @property
    def inner(self) -> str:
        """All numbers between the two, by their prefixes."""
        return f"in_{safe(self.name)}"

    @property
    def span(self) -> Span:
        """The bounds of the kind."""
        return _REAL if self.kind is FilterKind.FLOAT else _WHOLE

    def columns(self, value: object) -> dict[str, Any]:
        """The columns' content for a payload value; raises ValueError for a list that Milvus cannot hold."""
        items = [item for item in (value if isinstance(value, list | tuple) else [value]) if item is not None]
        match self.kind:
            case FilterKind.KEYWORD:
                words = [item for item in items if isinstance(item, str)]
                return {
                    self.words: self._packed([each.encode().hex() for each in words])
                    if self.packed
                    else self._array(words)
                }
            case FilterKind.BOOL:
                return {
                    self.yes: any(item is True for item in items),
                    self.no: any(item is False for item in items),
                }
            case FilterKind.INT | FilterKind.FLOAT | FilterKind.DATE:
                return self._numbers(sorted({kept for item in items for kept in number(self.kind, item)}))

    def _numbers(self, values: Sequence[float]) -> dict[str, Any]:
        if not values:
            return {self.low: self.span.most, self.high: self.span.least, self.inner: "" if self.packed else []}
        inner = [token(value) for value in values[1:-1]]
        prefixes = {whole[:size] for whole in inner for size in range(1, 17)}
        kept = self._packed(inner) if self.packed else self._array(sorted(prefixes))
        return {self.low: values[0], self.high: values[-1], self.inner: kept}

    def _packed(self, words: Sequence[str]) -> str:
        text = f"|{'|'.join(words)}|" if words else ""
        if len(text) > LONGEST:
            raise ValueError(
                f"payload[{self.name!r}] is filterable and takes {len(text)} bytes, two for each of its own; Milvus Lite compares at most {LONGEST}"
            )
        return text

    def _array(self, values: list[str]) -> list[str]:
        if len(values) > CAPACITY:
            raise ValueError(
                f"payload[{self.name!r}] is filterable and has more values than the {CAPACITY} that a Milvus array holds"
            )
        longest = max((len(value.encode()) for value in values), default=0)
        if longest > LONGEST:
            raise ValueError(
                f"payload[{self.name!r}] is filterable and has {longest} bytes; Milvus compares at most {LONGEST}"
            )
        return values


def filter_values(schema: Schema, payload: Mapping[str, Any], *, packed: bool) -> dict[str, Any]:
    """The filter columns of a record."""
    made: dict[str, Any] = {}
    for name, kind in schema.filterable.items():
        made |= Kept(kind, name, packed).columns(payload.get(name))
    return made


def number(kind: FilterKind, value: object) -> list[float]:
    """A value as the number that is compared, dates as microseconds since 1970; nothing for what is not of the kind."""
    if kind is FilterKind.DATE:
        return _microseconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if kind is FilterKind.FLOAT:
        return [float(value) + 0.0]  # minus zero is zero
    return [int(value)] if value == int(value) and int(value) in INT64 else []


def _microseconds(value: object) -> list[float]:
    if not isinstance(value, str):
        return []
    try:
        return [(parse_date(value) - _EPOCH) // timedelta(microseconds=1)]
    except ValueError:
        return []


def token(value: float) -> str:
    """Sixteen hexadecimal digits in the order of the numbers; whole numbers and floats each for themselves."""
    return f"{_key(value):016x}"


def _key(value: float) -> int:
    if isinstance(value, int):
        return value + 2**63
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits ^ (2**64 - 1) if bits >> 63 else bits | 2**63)


def cover(low: float, high: float) -> list[str]:
    """The prefixes of just those tokens that lie from ``low`` to ``high``, both included."""
    at, end = _key(low), _key(high)
    made = []
    while at <= end:
        shift = 0
        while shift < 60 and at % 2 ** (shift + 4) == 0 and at + 2 ** (shift + 4) - 1 <= end:
            shift += 4
        made.append(f"{at:016x}"[: 16 - shift // 4])
        at += 2**shift
    return made


def above(kind: FilterKind, value: float) -> float:
    """The least number of a kind over ``value``."""
    return math.nextafter(value, math.inf) if kind is FilterKind.FLOAT else value + 1


def below(kind: FilterKind, value: float) -> float:
    """The greatest number of a kind under ``value``."""
    return math.nextafter(value, -math.inf) if kind is FilterKind.FLOAT else value - 1
