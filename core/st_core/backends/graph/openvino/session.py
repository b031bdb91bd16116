"""Use OpenVINO: write a traced program, convert weights to fewer bits, open sessions."""

from __future__ import annotations

import math
import os
import queue
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from st_core.backends.graph.child_process import is_installed, run_module
from st_core.backends.graph.sixteen_bits import to_bits
from st_core.errors import ModelBroken, missing_extra

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray
    from openvino import CompiledModel, Core, InferRequest, Model, Node, Output
    from torch._ops import OpOverload
    from torch.export import ExportedProgram

    from st_core.backends.graph.runtimes import Feed

__all__ = ["check", "installed", "open_session", "reduce", "weight_types", "write"]

FILE = "openvino_model.xml"

PRECISIONS = {"float32": "f32", "int8": "f32", "float16": "f16", "bfloat16": "bf16"}
"""OpenVINO's inference precision by dtype.

It is always set, because OpenVINO 2026.4 by default computes in bfloat16 where the processor supports it.
"""

CAPABILITIES = {"f16": "FP16", "bf16": "BF16"}
"""The device capability needed to compute in a dtype; without it, the computation is in float32."""

GROUP = 128
"""Number of activations that share a scale in dynamic quantization.

Measured: the default of 32 is slow, and more than 128 loses accuracy.
"""

TYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    **dict.fromkeys(("i8", "u8"), "int8"),
    **dict.fromkeys(("i4", "u4"), "int4"),
}

SMALLEST = 16
"""Minimum side length of a matrix that is converted."""


def _package() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "backend='openvino'") from error
    except RuntimeError as error:  # openvino-telemetry 2026.4 fails without a home folder
        raise OSError(
            f"openvino cannot be imported ({error}): set HOME to a folder, or remove its telemetry: pip uninstall "
            "openvino-telemetry"
        ) from error
    package: ModuleType = openvino
    return package


def installed() -> bool:
    """Return whether the package is installed."""
    return is_installed("openvino")


def check(dtype: str, *, calibrated: bool = False) -> None:
    """Raise ValueError for a dtype without graphs, ImportError where a package is missing."""
    _package()
    if calibrated and dtype != "int8":
        raise ValueError(f"calibration texts need dtype='int8', got {dtype!r}")
    if dtype not in PRECISIONS:
        raise ValueError(f"unknown dtype {dtype!r} for backend 'openvino'; expected one of {', '.join(PRECISIONS)}")


def write(program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> str:
    """Write a traced program as ``openvino_model.xml`` with its weights in a file beside it.

    The frontend is called directly, because ``openvino.convert_model`` does the same and also sends telemetry.
    """
    ov = _package()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose
    from torch.export.decomp_utils import CustomDecompTable

    table = cast("Callable[[], dict[OpOverload, Callable[..., object]]]", CustomDecompTable)()
    for operation in ops_to_not_decompose():
        if operation in table:
            table.pop(operation)
    decoder = TorchFXPythonDecoder(program.run_decompositions(table).module(), dynamic_shapes=True)
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    let_every_row_attend(model)
    ov.save_model(model, folder / FILE, compress_to_fp16=False)
    return FILE


def let_every_row_attend(model: Model) -> None:
    """Change the attention of a model in place so that a token that may attend to no token attends to all tokens.

    Such tokens are padding: they precede the text of a causal model, or are further from it than a sliding window
    reaches. OpenVINO 2026.4 computes NaN for them, which spreads in the next layer, because zero times NaN is NaN.
    Torch 2.15 and onnxruntime 1.32 compute finite values, which are never read.
    """
    from openvino import opset13 as ops

    changed: dict[tuple[str, int], Output] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_input_size() < 4:
            continue
        mask = node.input_value(3)
        if mask.get_element_type().get_type_name() != "boolean":
            continue
        key = mask.get_node().get_friendly_name(), mask.get_index()
        if key not in changed:
            changed[key] = mask
            if _compares_positions(mask.get_node()):
                some = ops.reduce_logical_or(mask, ops.constant(np.array([-1])), keep_dims=True)
                changed[key] = ops.logical_or(mask, ops.logical_not(some)).output(0)
        node.input(3).replace_source_output(changed[key])


def _compares_positions(mask: Node) -> bool:
    """Return whether a mask is computed by comparing positions.

    Under a mask of padding alone, every token has a token to attend to. The bidirectional masks of transformers 5.23
    compare positions with 0 by GreaterEqual.
    """
    seen, pending = set(), [mask]
    while pending:
        node = pending.pop()
        if node.get_type_name() in {"Less", "LessEqual", "Greater"}:
            return True
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            pending += [value.get_node() for value in node.input_values()]
    return False


def reduce(file: Path, dtype: str, feeds: Sequence[Feed]) -> None:
    """Convert a float32 graph to 16-bit floats or to int8.

    With ``feeds``, calibration inputs, int8 applies to activations as well as weights; without them, to weights.
    """
    ov = _package()
    reduced = file.with_name("reduced.xml")
    if feeds:
        inputs = file.with_name("feeds.npz")
        arrays: dict[str, Any] = {
            f"{number}/{name}": array for number, feed in enumerate(feeds) for name, array in feed.items()
        }
        np.savez(inputs, **arrays)
        run_module(
            "st_core.backends.graph.openvino.int8",
            *(str(path) for path in (file, inputs, reduced)),
            needs=("nncf",),
            environment={"NNCF_CI": "1"},  # no telemetry
        )
        inputs.unlink()
    else:
        model = ov.Core().read_model(file)
        if dtype == "int8":
            compress_weights(model)
        if dtype == "bfloat16":
            store_in_bfloat16(model)
        ov.save_model(model, reduced, compress_to_fp16=dtype == "float16")
        del model
    reduced.with_suffix(".bin").replace(file.with_suffix(".bin"))
    reduced.replace(file)


def compress_weights(model: Model) -> None:
    """Replace the matrices of a model in place by eight-bit matrices: ``x = (q - zero) * scale``, both per row.

    OpenVINO multiplies this form without unpacking it. It is NNCF's ``INT8_ASYM``, written here because importing nncf
    changes functions of torch.
    """
    for node in model.get_ordered_ops():
        port = {"MatMul": 1, "Gather": 0}.get(node.get_type_name())
        if port is None:
            continue
        source = node.input_value(port).get_node()
        if source.get_type_name() != "Constant" or len(source.get_output_shape(0)) != 2:
            continue
        weights = source.get_data()
        if weights.dtype != np.float32 or min(weights.shape) < SMALLEST:
            continue
        rows = node.get_type_name() == "Gather" or bool(node.get_attributes()["transpose_b"])
        node.input(port).replace_source_output(_in_eight_bits(weights, axis=1 if rows else 0).output(0))


def store_in_bfloat16(model: Model) -> None:
    """Replace the float32 matrices of a model in place by bfloat16 matrices, each converted to float32 by a Convert.

    OpenVINO itself can save weights only as float16.
    """
    from openvino import Shape, Tensor, Type
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != Type.f32:
            continue
        weights = node.get_data()
        bits = to_bits(weights, "bfloat16") if weights.ndim > 1 else None
        if bits is None:
            continue
        stored = ops.constant(
            Tensor(bits, Shape(weights.shape), Type.bf16), shared_memory=False
        )  # OpenVINO would read a shared array after it is freed
        whole = ops.convert(stored, Type.f32)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(whole.output(0))


def _in_eight_bits(weights: NDArray[np.float32], axis: int) -> Node:
    from openvino import Type
    from openvino import opset13 as ops

    low = np.minimum(weights.min(axis=axis, keepdims=True), 0)
    high = np.maximum(weights.max(axis=axis, keepdims=True), 0)
    scale = np.maximum((high - low) / 255, np.finfo(np.float32).tiny).astype(np.float32)
    zero = np.clip(np.round(-low / scale), 0, 255).astype(np.uint8)
    steps = np.clip(np.round(weights / scale) + zero, 0, 255).astype(np.uint8)
    centred = ops.subtract(ops.convert(ops.constant(steps), Type.f32), ops.convert(ops.constant(zero), Type.f32))
    return ops.multiply(centred, ops.constant(scale))


def _name_of(names: Iterable[str]) -> str:
    """Return the preferred name of an output: a plain name rather than a name that a converter numbered."""
    return min(names, key=lambda name: (not name.isidentifier(), name), default="")


class Session:
    """A compiled graph; safe in threads, because each call creates its own inference request."""

    def __init__(self, compiled: CompiledModel) -> None:
        """Wrap a compiled model of OpenVINO."""
        self._compiled = compiled
        self._idle: queue.SimpleQueue[InferRequest] = queue.SimpleQueue()
        self.outputs = tuple(_name_of(each.get_names()) for each in compiled.outputs)
        self.inputs = tuple(each.get_any_name() for each in compiled.inputs)

    def __call__(self, feed: Feed) -> list[NDArray[np.float32]]:
        """Return copies of the outputs in the graph's order."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            outputs = request.infer(feed, share_inputs=True, share_outputs=True)
            return [np.array(outputs[index], np.float32) for index in range(len(self.outputs))]
        finally:
            self._idle.put(request)


def weight_types(file: Path) -> frozenset[str]:
    """Return the dtypes of a graph's large constants; raise ModelBroken for a file that is not a graph."""
    ov = _package()
    try:
        operations = ov.Core().read_model(file).get_ops()
    except RuntimeError as error:
        raise ModelBroken(f"{file}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from error
    constants = (each for each in operations if each.get_type_name() == "Constant")
    types = {
        each.get_element_type().get_type_name()
        for each in constants
        if math.prod(each.get_output_shape(0)) >= SMALLEST**2
    }
    return frozenset(TYPES[name] for name in types if name in TYPES)


def open_session(file: Path, dtype: str, cache: Path | None) -> Session:
    """Compile a graph for this processor.

    The result is stored in ``cache`` for the next start if that folder is writable. 16-bit graphs are computed in
    16-bit floats where the processor supports them, else in float32. Raises ModelBroken for a file that OpenVINO cannot
    use, ValueError where it computes in another dtype than requested.
    """
    ov = _package()
    core = ov.Core()
    precision = _computed_in(dtype, capable(core))
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    if dtype == "int8":
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(GROUP)
    if cache is not None and _can_hold(cache):
        options["CACHE_DIR"] = str(cache)
    try:
        compiled = core.compile_model(file, "CPU", options)
    except RuntimeError as error:
        raise ModelBroken(f"{file}: OpenVINO cannot use it: {str(error).strip().splitlines()[-1]}") from error
    computed = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if computed != precision:  # the setting is a hint: without FP16, OpenVINO 2026.4 silently uses bfloat16
        raise ValueError(
            f"OpenVINO was set to compute in {TYPES[precision]} and computes in {TYPES.get(computed, computed)}; use "
            "dtype='float32'"
        )
    return Session(compiled)


def _can_hold(folder: Path) -> bool:
    """Create a folder and return whether it is writable.

    OpenVINO 2026.4 does not compile with a cache folder that it cannot create.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def capable(core: Core) -> Collection[str]:
    """Return the capabilities of the processor as OpenVINO reports them."""
    capabilities: Collection[str] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return capabilities


def _computed_in(dtype: str, capabilities: Collection[str]) -> str:
    """Return OpenVINO's name of the dtype that a graph of ``dtype`` is computed in on this processor."""
    precision = PRECISIONS[dtype]
    needed = CAPABILITIES.get(precision)
    return precision if needed is None or needed in capabilities else "f32"
