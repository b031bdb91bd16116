"""Which number types the weights of an ONNX file are kept in, without the onnx package: the few fields of its format that say so.

The file is a protocol buffer: fields one after another, each a number that holds its name and kind, then a number or a length and so many bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from st_core.errors import ModelBroken

__all__ = ["weight_types"]

TYPES = {1: "float32", 2: "int8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16", 21: "int4", 22: "int4"}
"""By the numbers of ``TensorProto.DataType``; signed and unsigned count as one. Others hold no weights: positions, masks, names."""

GRAPH, INITIALIZER, DIMENSIONS, TYPE = 7, 5, 1, 2
LARGE = 256
"""Tensors of fewer elements are scales, zeros and biases."""

_Span = tuple[int, int, int]


def weight_types(path: Path) -> frozenset[str]:
    """The types of the large tensors of a graph; raises ModelBroken for a file that is no graph."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return frozenset(_types(data))
    except (IndexError, ValueError, OSError) as error:
        raise ModelBroken(f"{path}: not a readable ONNX graph: {error}") from error


def _types(data: mmap.mmap) -> Iterator[str]:
    for field, start, stop in _fields(data, 0, len(data)):
        for inner, begin, end in _fields(data, start, stop) if field == GRAPH else ():
            if inner == INITIALIZER:
                kind, size = _tensor(data, begin, end)
                if size >= LARGE and kind in TYPES:
                    yield TYPES[kind]


def _tensor(data: mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    """Type and number of elements of a tensor; its dimensions stand one by one, or packed into one field."""
    kind, size = 0, 1
    for field, begin, end in _fields(data, start, stop):
        if field == TYPE:
            kind = begin
        elif field == DIMENSIONS and end < 0:
            size *= begin
        elif field == DIMENSIONS:
            while begin < end:
                dimension, begin = _number(data, begin)  # noqa: PLW2901 - it walks through the field
                size *= dimension
    return kind, size


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[_Span]:
    """Each field as its number and where its bytes begin and end; of a plain number, the number itself and -1."""
    while start < stop:
        tag, start = _number(data, start)
        match tag & 7:
            case 0:
                value, start = _number(data, start)
                yield tag >> 3, value, -1
            case 2:
                size, start = _number(data, start)
                if start + size > stop:
                    raise ValueError("a field goes beyond the end")
                yield tag >> 3, start, start + size
                start += size
            case 1 | 5 as kind:
                start += 8 if kind == 1 else 4
            case other:
                raise ValueError(f"a field of the unknown kind {other}")


def _number(data: mmap.mmap, start: int) -> tuple[int, int]:
    """A number, seven bits to a byte and the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
