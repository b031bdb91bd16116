"""Keeps the matrices of an ONNX file in 16-bit floats, each read through a Cast to float32.

ONNX Runtime 1.32 has no products of 16-bit floats for x86 processors: a graph converted as a whole (``onnxruntime.transformers.float16``) gets a Cast
around nearly every node, and on MiniLM takes 1.08 times float32's time with 3 times the error of this. Here products are float32's own: the Casts of
weights are computed once, when the file is opened. A table of vectors stays in 16 bits in memory too, for only the rows that are read are cast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.backends.graph.sixteen_bits import to_bits
from st_core.errors import missing_packages

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LARGE", "store_in_sixteen_bits"]

LARGE = 1_500_000_000
"""Bytes of weights from which on they lie in a file beside the graph: a protocol buffer holds 2 GB."""


def store_in_sixteen_bits(file: Path, dtype: str) -> None:
    """Rewrite a float32 graph with its matrices in float16 or bfloat16; vectors of biases and norms, which are small, stay as they are."""
    try:
        import onnx
    except ImportError as error:
        raise missing_packages(["onnx"], f"changing a graph to {dtype}") from error
    model = onnx.load(file)
    change(model.graph, dtype)
    beside = file.with_name(f"{file.name}.data")
    beside.unlink(missing_ok=True)  # it is read already, and would be written on at its end
    large = sum(len(each.raw_data) for each in model.graph.initializer) > LARGE
    onnx.save(model, file, save_as_external_data=large, location=beside.name)


def change(graph: Any, dtype: str) -> None:
    """Make the float32 matrices of a graph 16-bit ones, in place, with a Cast behind each."""
    from onnx import TensorProto, helper, numpy_helper

    readers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
    for node in graph.node:
        for at, name in enumerate(node.input):
            readers[name].append((node, at))
    before: list[Any] = []
    after: dict[str, Any] = {}
    for tensor in _matrices(graph.initializer):
        bits = to_bits(numpy_helper.to_array(tensor), dtype)
        if bits is None:
            continue
        _fill(tensor, bits, getattr(TensorProto, dtype.upper()))
        reading = readers[tensor.name]
        if all((node.op_type, at) == ("Gather", 0) for node, at in reading):
            for node, _ in reading:
                (whole,) = node.output
                node.output[0] = f"{whole}_as_{dtype}"
                after[node.output[0]] = helper.make_node("Cast", [node.output[0]], [whole], to=TensorProto.FLOAT)
        else:
            cast = f"{tensor.name}_as_float32"
            before.append(helper.make_node("Cast", [tensor.name], [cast], to=TensorProto.FLOAT))
            for node, at in reading:
                node.input[at] = cast
    ordered = [*before, *_followed(graph.node, after)]
    del graph.node[:]
    graph.node.extend(ordered)


def _matrices(tensors: Iterable[Any]) -> Iterator[Any]:
    from onnx import TensorProto

    return (each for each in tensors if each.data_type == TensorProto.FLOAT and len(each.dims) > 1)


def _fill(tensor: Any, bits: NDArray[np.uint16], kind: int) -> None:
    """Give a tensor other contents of the same shape."""
    tensor.ClearField("float_data")
    tensor.data_type, tensor.raw_data = kind, bits.astype("<u2").tobytes()


def _followed(nodes: Iterable[Any], after: dict[str, Any]) -> list[Any]:
    """Copies of nodes, each with the one that stands behind its output; the graph's own die when its list is emptied."""
    ordered = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        ordered.append(copy)
        ordered += [after[name] for name in node.output if name in after]
    return ordered
