"""Name a collection's columns and encode values for them.

Milvus does not compare list elements, does not keep the order of JSON keys and uses three-valued logic for nullable
columns. The payload is therefore stored as JSON text cut into pieces, no column is nullable, and numbers and dates are
stored as the minimum and maximum of the field, which suffice for every filter on a field with one or two values. In
longer lists, the values between minimum and maximum are stored as hexadecimal tokens and their prefixes. A range
becomes a set of at most a few hundred prefixes, and a list has an element in the range exactly if one of its tokens
starts with one of these prefixes (a trie, as in the former numeric fields of Lucene).

Lists are stored as arrays, which servers can index, or as packed text: Milvus Lite evaluates array functions row by row
in Python, but LIKE on text with Arrow, which is 15 times as fast. Packed text consists of hexadecimal words between
bars, so that no value matches a part of another value or acts as a wildcard.
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

import numpy as np
import orjson

from st_connectors._matching import INT64, to_float, to_int64, values_at
from st_connectors.filters import parse_date
from st_connectors.schema import DenseField, Field, FilterKind, Metric, Schema, SparseField
from st_connectors.store import Vector
from st_core.vectors import SparseVector

__all__ = [
    "FILLER",
    "ID",
    "MAX_ELEMENTS",
    "MAX_PACKED_VALUES",
    "MAX_TEXT_BYTES",
    "METRICS",
    "PAYLOAD",
    "FilterColumns",
    "PrimaryKey",
    "Scalar",
    "collection_name",
    "covering_prefixes",
    "decode_vector",
    "encode_sparse",
    "encode_vector",
    "filter_values",
    "join_payload",
    "next_above",
    "next_below",
    "placeholder_vector",
    "presence_column",
    "safe_name",
    "split_payload",
    "text_column",
    "to_numbers",
    "to_token",
    "vector_column",
]

ID = "st_id"
PAYLOAD = "st_payload"
FILLER = "vec_st_filler"
"""The vector column of a collection without vector fields: Milvus requires every collection to have a vector column."""

METRICS: Mapping[Metric, str] = {Metric.COSINE: "COSINE", Metric.DOT: "IP", Metric.EUCLIDEAN: "L2"}

MAX_TEXT_BYTES = 65_535
"""The maximum size of a VARCHAR value and of a VARCHAR element of an array."""
MAX_ELEMENTS = 4096
"""The maximum length of an array."""
MAX_PACKED_VALUES = 8192
"""The maximum number of values in a filter on packed text. Milvus Lite compares 60,000 rows with one value in 2 ms, so
that this many take 16 seconds; a request fails after a minute."""
_PIECE_LENGTH = MAX_TEXT_BYTES // 4
"""Characters per payload piece: UTF-8 needs at most four bytes per character."""

_PLAIN_NAME = re.compile(r"(?!x_)[A-Za-z_][A-Za-z0-9_]{0,63}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1024)
def safe_name(name: str) -> str:
    """Return a name of letters, digits and underscores for any name.

    Names that consist of these characters stay unchanged; other names become a readable part and a hash.
    """
    if _PLAIN_NAME.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:32]
    return f"x_{readable}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def collection_name(name: str) -> str:
    """Return the name that a collection has in Milvus."""
    return safe_name(name)


def vector_column(field: str) -> str:
    """Return the column of a field's vectors; for a text field, a BM25 function computes the vectors."""
    return f"vec_{safe_name(field)}"


def presence_column(field: str) -> str:
    """Return the column that states whether a record has a vector in an optional field."""
    return f"has_{safe_name(field)}"


def text_column(field: str) -> str:
    """Return the column of a text field's text."""
    return f"text_{safe_name(field)}"


def split_payload(payload: Mapping[str, Any]) -> list[str]:
    """Serialise a payload as JSON and cut it into pieces that fit a VARCHAR."""
    text = orjson.dumps(payload).decode()
    return [text[at : at + _PIECE_LENGTH] for at in range(0, len(text), _PIECE_LENGTH)]


def join_payload(pieces: Sequence[str]) -> dict[str, Any]:
    """Restore the payload from its pieces."""
    payload: dict[str, Any] = orjson.loads("".join(pieces))
    return payload


def encode_sparse(vector: SparseVector) -> dict[int, float]:
    """Convert a sparse vector to Milvus's mapping from index to weight."""
    return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def encode_vector(vector: Vector) -> Any:
    """Convert a vector to the type that pymilvus expects: a mapping for sparse vectors, else a list of floats."""
    return encode_sparse(vector) if isinstance(vector, SparseVector) else vector.tolist()


def decode_vector(spec: Field, value: Any) -> Vector:
    """Convert a vector as returned by pymilvus to a sparse vector, or to float32 [dimension]."""
    return SparseVector.from_mapping(value) if isinstance(spec, SparseField) else np.asarray(value, np.float32)


def placeholder_vector(spec: DenseField | SparseField) -> Any:
    """Return the value that a vector column contains for a record without the vector."""
    return {0: 1.0} if isinstance(spec, SparseField) else [1.0] * spec.dimension


@dataclass(frozen=True, slots=True)
class Bounds:
    """The lowest and highest number of a kind.

    A row without a value stores the highest number as its minimum and the lowest number as its maximum.
    """

    lowest: float
    highest: float


_INT_BOUNDS = Bounds(INT64[0], INT64[-1])
_FLOAT_BOUNDS = Bounds(-sys.float_info.max, sys.float_info.max)


@dataclass(frozen=True, slots=True)
class FilterColumns:
    """The columns of one filterable field; if ``packed``, lists are stored as packed text instead of arrays."""

    kind: FilterKind
    name: str
    packed: bool = False

    @property
    def keywords(self) -> str:
        """The column of keywords."""
        return f"kw_{safe_name(self.name)}"

    @property
    def has_true(self) -> str:
        """The column that states whether the values include true."""
        return f"yes_{safe_name(self.name)}"

    @property
    def has_false(self) -> str:
        """The column that states whether the values include false."""
        return f"no_{safe_name(self.name)}"

    @property
    def minimum(self) -> str:
        """The column of the lowest number."""
        return f"lo_{safe_name(self.name)}"

    @property
    def maximum(self) -> str:
        """The column of the highest number."""
        return f"hi_{safe_name(self.name)}"

    @property
    def between(self) -> str:
        """The column of the numbers between minimum and maximum, stored as prefixes or as packed tokens."""
        return f"in_{safe_name(self.name)}"

    @property
    def bounds(self) -> Bounds:
        """The bounds of the field's kind."""
        return _FLOAT_BOUNDS if self.kind is FilterKind.FLOAT else _INT_BOUNDS

    def encode(self, value: object) -> dict[str, Any]:
        """Return the column values for a payload value; raise ValueError for a list that Milvus cannot store."""
        items = [item for item in (value if isinstance(value, list | tuple) else [value]) if item is not None]
        match self.kind:
            case FilterKind.KEYWORD:
                words = [item for item in items if isinstance(item, str)]
                packed = self.packed
                return {self.keywords: self._pack([w.encode().hex() for w in words]) if packed else self._array(words)}
            case FilterKind.BOOL:
                return {
                    self.has_true: any(item is True for item in items),
                    self.has_false: any(item is False for item in items),
                }
            case FilterKind.INT | FilterKind.FLOAT | FilterKind.DATE:
                return self._encode_numbers(
                    sorted({number for item in items for number in to_numbers(self.kind, item)})
                )

    def _encode_numbers(self, values: Sequence[float]) -> dict[str, Any]:
        if not values:
            nothing: str | list[str] = "" if self.packed else []
            return {self.minimum: self.bounds.highest, self.maximum: self.bounds.lowest, self.between: nothing}
        tokens = [to_token(value) for value in values[1:-1]]
        prefixes = {token[:size] for token in tokens for size in range(1, 17)}
        between = self._pack(tokens) if self.packed else self._array(sorted(prefixes))
        return {self.minimum: values[0], self.maximum: values[-1], self.between: between}

    def _pack(self, words: Sequence[str]) -> str:
        text = f"|{'|'.join(words)}|" if words else ""
        if len(text) > MAX_TEXT_BYTES:
            raise ValueError(
                f"payload[{self.name!r}] is filterable and takes {len(text)} bytes, two for each of its own; "
                f"Milvus Lite compares at most {MAX_TEXT_BYTES}"
            )
        return text

    def _array(self, values: list[str]) -> list[str]:
        if len(values) > MAX_ELEMENTS:
            raise ValueError(
                f"payload[{self.name!r}] is filterable and has more values than the {MAX_ELEMENTS} "
                "that fit a Milvus array"
            )
        longest = max((len(value.encode()) for value in values), default=0)
        if longest > MAX_TEXT_BYTES:
            raise ValueError(
                f"payload[{self.name!r}] is filterable and has {longest} bytes; "
                f"Milvus compares at most {MAX_TEXT_BYTES}"
            )
        return values


@dataclass(frozen=True, slots=True)
class PrimaryKey:
    """The primary key of an adopted collection: its column, and whether it is an integer and generated by Milvus."""

    name: str
    is_integer: bool = False
    is_generated: bool = False

    @property
    def always(self) -> str:
        """A condition that is true for every row, because no key is empty or below the lowest integer."""
        return f"{self.name} >= {{p0}}" if self.is_integer else f'{self.name} != ""'

    @property
    def never(self) -> str:
        """A condition that is false for every row."""
        return f"{self.name} < {{p0}}" if self.is_integer else f'{self.name} == ""'

    @property
    def values(self) -> dict[str, Any]:
        """The template values of ``always`` and ``never``."""
        return {"p0": INT64[0]} if self.is_integer else {}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A payload column of an adopted collection: whether it may be null or missing, and whether it contains arrays."""

    nullable: bool = False
    is_array: bool = False


def filter_values(schema: Schema, payload: Mapping[str, Any], *, packed: bool) -> dict[str, Any]:
    """Return the values of all filter columns of a record by column; if ``packed``, lists become packed text."""
    values: dict[str, Any] = {}
    for name, kind in schema.filterable.items():
        values |= FilterColumns(kind, name, packed).encode(values_at(payload, name))
    return values


def to_numbers(kind: FilterKind, value: object) -> list[float]:
    """Return a list of the number that filters compare, or an empty list for a value of another kind.

    Dates become microseconds since 1970.
    """
    if kind is FilterKind.DATE:
        return _to_microseconds(value)
    number = to_float(value) if kind is FilterKind.FLOAT else to_int64(value)
    return [] if number is None else [number + 0]  # minus zero becomes zero


def _to_microseconds(value: object) -> list[float]:
    if not isinstance(value, str):
        return []
    try:
        return [(parse_date(value) - _EPOCH) // timedelta(microseconds=1)]
    except ValueError:
        return []


def to_token(value: float) -> str:
    """Return sixteen hexadecimal digits that sort in the order of the numbers.

    The tokens of integers and of floats cannot be compared with each other.
    """
    return f"{_sort_key(value):016x}"


def _sort_key(value: float) -> int:
    if isinstance(value, int):
        return value + 2**63
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits ^ (2**64 - 1) if bits >> 63 else bits | 2**63)


def covering_prefixes(low: float, high: float) -> list[str]:
    """Return prefixes that match exactly the tokens from ``low`` to ``high``, both included."""
    at, end = _sort_key(low), _sort_key(high)
    prefixes = []
    while at <= end:
        shift = 0
        while shift < 60 and at % 2 ** (shift + 4) == 0 and at + 2 ** (shift + 4) - 1 <= end:
            shift += 4
        prefixes.append(f"{at:016x}"[: 16 - shift // 4])
        at += 2**shift
    return prefixes


def next_above(kind: FilterKind, value: float) -> float:
    """Return the lowest number of this kind that is greater than ``value``."""
    return math.nextafter(value, math.inf) if kind is FilterKind.FLOAT else value + 1


def next_below(kind: FilterKind, value: float) -> float:
    """Return the highest number of this kind that is less than ``value``."""
    return math.nextafter(value, -math.inf) if kind is FilterKind.FLOAT else value - 1
