"""Read the dtypes of an ONNX file's weights without the onnx package.

The file is a protocol buffer: a sequence of fields, each a number with field number and wire type, then a number, or a
length and that many bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from st_core.errors import ModelBroken

__all__ = ["weight_types"]

TYPES = {1: "float32", 2: "int8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16", 21: "int4", 22: "int4"}
"""By the numbers of ``TensorProto.DataType``.

Signed and unsigned count as one. Other types are no weights: positions, masks, names.
"""

GRAPH, INITIALIZER, DIMENSIONS, TYPE = 7, 5, 1, 2
LARGE = 256
"""Tensors of fewer elements are scales, zero points and biases."""

_Span = tuple[int, int, int]


def weight_types(path: Path) -> frozenset[str]:
    """Return the dtypes of a graph's large tensors; raise ModelBroken for a file that is no graph."""
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
    """Return dtype number and element count of a tensor; its dimensions are separate fields or packed into one."""
    kind, size = 0, 1
    for field, begin, end in _fields(data, start, stop):
        if field == TYPE:
            kind = begin
        elif field == DIMENSIONS and end < 0:
            size *= begin
        elif field == DIMENSIONS:
            while begin < end:
                dimension, begin = _number(data, begin)  # noqa: PLW2901 - advances through the field
                size *= dimension
    return kind, size


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[_Span]:
    """Yield each field as its number and the start and end of its bytes; for a plain number, its value and -1."""
    while start < stop:
        tag, start = _number(data, start)
        match tag & 7:
            case 0:
                value, start = _number(data, start)
                yield tag >> 3, value, -1
            case 2:
                size, start = _number(data, start)
                if start + size > stop:
                    raise ValueError("a field ends beyond the file")
                yield tag >> 3, start, start + size
                start += size
            case 1 | 5 as kind:
                start += 8 if kind == 1 else 4
            case other:
                raise ValueError(f"unknown wire type {other}")


def _number(data: mmap.mmap, start: int) -> tuple[int, int]:
    """Return a number, stored seven bits per byte with the lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
