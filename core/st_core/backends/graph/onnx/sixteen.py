"""Store the matrices of an ONNX file as 16-bit floats, each converted to float32 by a Cast.

ONNX Runtime 1.32 has no products of 16-bit floats for x86 processors. In a graph that is converted completely
(``onnxruntime.transformers.float16``), it inserts a Cast around nearly every node; MiniLM then takes 1.08 times as long
as in float32, with 3 times the error of the conversion here. Here products are computed in float32, and the Casts of
weights are computed once, when the file is opened. A table of token embeddings stays in 16 bits in memory as well,
because only the rows that are read are converted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from st_core.backends.graph.sixteen_bits import to_bits
from st_core.errors import missing_packages

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto, TensorProto

__all__ = ["LARGE", "store_in_sixteen_bits"]

LARGE = 1_500_000_000
"""Size of weights in bytes above which they are stored in a separate file: a protocol buffer is limited to 2 GB."""


def store_in_sixteen_bits(file: Path, dtype: str) -> None:
    """Rewrite a float32 graph with its matrices in float16 or bfloat16.

    Biases and normalisation weights, which are small, are not converted.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_packages(["onnx"], f"converting a graph to {dtype}") from error
    model = onnx.load(file)
    change(model.graph, dtype)
    beside = file.with_name(f"{file.name}.data")
    beside.unlink(missing_ok=True)  # its content was read above, and onnx would append to it
    large = sum(len(each.raw_data) for each in model.graph.initializer) > LARGE
    onnx.save(model, file, save_as_external_data=large, location=beside.name)


def change(graph: GraphProto, dtype: str) -> None:
    """Convert the float32 matrices of a graph to 16 bits in place, and add a Cast after each."""
    from onnx import TensorProto, helper, numpy_helper

    readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for node in graph.node:
        for at, name in enumerate(node.input):
            readers[name].append((node, at))
    before: list[NodeProto] = []
    after: dict[str, NodeProto] = {}
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


def _matrices(tensors: Iterable[TensorProto]) -> Iterator[TensorProto]:
    from onnx import TensorProto

    return (each for each in tensors if each.data_type == TensorProto.FLOAT and len(each.dims) > 1)


def _fill(tensor: TensorProto, bits: NDArray[np.uint16], kind: int) -> None:
    """Replace the values of a tensor by other values of the same shape; ``kind`` is their ONNX data type."""
    tensor.ClearField("float_data")
    tensor.data_type, tensor.raw_data = kind, bits.astype("<u2").tobytes()


def _followed(nodes: Iterable[NodeProto], after: dict[str, NodeProto]) -> list[NodeProto]:
    """Return copies of nodes, each followed by the node in ``after`` that reads its output.

    Copies are needed because the original nodes become invalid when the graph's list is cleared.
    """
    ordered = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        ordered.append(copy)
        ordered += [after[name] for name in node.output if name in after]
    return ordered
