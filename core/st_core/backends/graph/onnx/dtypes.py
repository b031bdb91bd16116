"""Read the dtypes of an ONNX file's weights without the onnx package.

The file is a protocol buffer message, a sequence of fields. Each field begins with a key that combines the field number
and the wire type; the wire type tells whether an integer follows, a fixed number of bytes, or a length and that many
bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from st_core.errors import ModelBroken

__all__ = ["weight_types"]

TYPES = {1: "float32", 2: "int8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16", 21: "int4", 22: "int4"}
"""Dtype names by the values of ``TensorProto.DataType``; signed and unsigned integers share a name.

Other types do not occur in weights, but in positions, masks and names.
"""

GRAPH, INITIALIZER, DIMENSIONS, TYPE = 7, 5, 1, 2
LARGE = 256
"""Minimum number of elements of a weight tensor; smaller tensors are scales, zero points and biases."""

_Span = tuple[int, int, int]


def weight_types(path: Path) -> frozenset[str]:
    """Return the dtypes of a graph's large tensors; raise ModelBroken for a file that is not a graph."""
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
    """Return the data type and the number of elements of a tensor.

    Its dimensions are separate fields or packed into one field.
    """
    kind, size = 0, 1
    for field, begin, end in _fields(data, start, stop):
        if field == TYPE:
            kind = begin
        elif field == DIMENSIONS and end < 0:
            size *= begin
        elif field == DIMENSIONS:
            while begin < end:
                dimension, begin = _number(data, begin)  # noqa: PLW2901 - advances to the next number of the field
                size *= dimension
    return kind, size


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[_Span]:
    """Yield the fields of a message, each as its number and the start and end of its bytes.

    For an integer field, the start is its value and the end is -1.
    """
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
    """Return an integer stored with seven bits per byte, lowest bits first, and the position after it."""
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
