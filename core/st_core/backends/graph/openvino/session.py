"""Graphs on OpenVINO: written from a traced program, weights in fewer bits, sessions."""

from __future__ import annotations

import math
import os
import queue
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.backends.graph.child_process import is_installed, run_module
from st_core.backends.graph.sixteen_bits import to_bits
from st_core.errors import ModelBroken, missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check", "installed", "open_session", "reduce", "weight_types", "write"]

FILE = "openvino_model.xml"

PRECISIONS = {"float32": "f32", "int8": "f32", "float16": "f16", "bfloat16": "bf16"}
"""Always said: left alone, OpenVINO 2026.4 computes in bfloat16 where the processor has it, whatever the weights are kept in."""

CAPABILITIES = {"f16": "FP16", "bf16": "BF16"}
"""By what OpenVINO calls it when a device computes in a type; without it, weights of that type are computed with in float32."""

GROUP = 128
"""Activations that share a scale when they are quantised on the fly. Measured: 32, the default, is slow; more than 128 loses accuracy."""

TYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    **dict.fromkeys(("i8", "u8"), "int8"),
    **dict.fromkeys(("i4", "u4"), "int4"),
}

SMALLEST = 16
"""Weights with a side shorter than this stay as they are."""


def _package() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "backend='openvino'") from error
    except RuntimeError as error:  # openvino-telemetry 2026.4 looks for the user's home folder
        raise OSError(
            f"openvino cannot be imported ({error}): set HOME to a folder, or do without its telemetry: pip uninstall openvino-telemetry"
        ) from error
    return openvino


def installed() -> bool:
    """Whether its package can be imported."""
    return is_installed("openvino")


def check(dtype: str, *, calibrated: bool = False) -> None:
    """Raise ValueError for a type there is none of, ImportError where a package is missing."""
    _package()
    if calibrated and dtype != "int8":
        raise ValueError(f"texts to calibrate on are for dtype='int8', not for {dtype!r}")
    if dtype not in PRECISIONS:
        raise ValueError(f"backend 'openvino' has no type {dtype!r}; there are {', '.join(PRECISIONS)}")


def write(program: Any, folder: Path, outputs: Sequence[str]) -> str:
    """Write a traced program as ``openvino_model.xml`` with its weights beside it.

    The frontend is called directly: ``openvino.convert_model`` does the same, and reports to its makers over the network.
    """
    ov = _package()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose
    from torch.export.decomp_utils import CustomDecompTable

    table: Any = CustomDecompTable()  # type: ignore[no-untyped-call]
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


def let_every_row_attend(model: Any) -> None:
    """Change a model's attention, in place, so that a token which may attend to none attends to all.

    Such tokens are of padding: to the left of a causal model's text, or further from it than a sliding window reaches. OpenVINO 2026.4 makes them
    NaN, of which nothing times is NaN again in the next layer, where torch 2.15 and onnxruntime 1.32 make finite numbers that nobody reads.
    """
    from openvino import opset13 as ops

    changed: dict[Any, Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_input_size() < 4:
            continue
        mask = node.input_value(3)
        if mask.get_element_type().get_type_name() != "boolean":
            continue
        key = mask.get_node().get_friendly_name(), mask.get_index()
        if key not in changed:
            changed[key] = mask
            if _depends_on_places(mask.get_node()):
                some = ops.reduce_logical_or(mask, ops.constant(np.array([-1])), keep_dims=True)
                changed[key] = ops.logical_or(mask, ops.logical_not(some)).output(0)
        node.input(3).replace_source_output(changed[key])


def _depends_on_places(mask: Any) -> bool:
    """Whether places of tokens are compared to make a mask: one of padding alone leaves every token something.

    The bidirectional masks of transformers 5.23 compare places with 0, by GreaterEqual.
    """
    seen, waiting = set(), [mask]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() in {"Less", "LessEqual", "Greater"}:
            return True
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            waiting += [value.get_node() for value in node.input_values()]
    return False


def reduce(file: Path, dtype: str, feeds: Sequence[Mapping[str, NDArray[np.int64]]]) -> None:
    """Change a written float32 graph: half the bytes for 16-bit floats; for int8 eight-bit weights, and activations where there are ``feeds``."""
    ov = _package()
    made = file.with_name("reduced.xml")
    if feeds:
        given = file.with_name("feeds.npz")
        arrays: dict[str, Any] = {
            f"{number}/{name}": array for number, feed in enumerate(feeds) for name, array in feed.items()
        }
        np.savez(given, **arrays)
        run_module(
            "st_core.backends.graph.openvino.int8",
            *(str(path) for path in (file, given, made)),
            needs=("nncf",),
            environment={"NNCF_CI": "1"},  # it asks the network for nothing then
        )
        given.unlink()
    else:
        model = ov.Core().read_model(file)
        if dtype == "int8":
            compress_weights(model)
        if dtype == "bfloat16":
            store_in_bfloat16(model)
        ov.save_model(model, made, compress_to_fp16=dtype == "float16")
        del model
    made.with_suffix(".bin").replace(file.with_suffix(".bin"))
    made.replace(file)


def compress_weights(model: Any) -> None:
    """Replace the matrices of a model by eight-bit ones, in place: one scale and one zero for each row, as ``x = (q - zero) * scale``.

    This is the form OpenVINO multiplies without unpacking, and NNCF's ``INT8_ASYM``, whose import alone changes functions of torch.
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


def store_in_bfloat16(model: Any) -> None:
    """Replace the float32 matrices of a model by bfloat16 ones, in place, each read through a Convert; OpenVINO's own saving knows float16 alone."""
    from openvino import Shape, Tensor, Type
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != Type.f32:
            continue
        weights = node.get_data()
        bits = to_bits(weights, "bfloat16") if weights.ndim > 1 else None
        if bits is None:
            continue
        kept = ops.constant(
            Tensor(bits, Shape(weights.shape), Type.bf16), shared_memory=False
        )  # else it reads an array that is gone
        whole = ops.convert(kept, Type.f32)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(whole.output(0))


def _in_eight_bits(weights: NDArray[np.float32], axis: int) -> Any:
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
    """One of an output's names: a word before what a converter numbered."""
    return min(names, key=lambda name: (not name.isidentifier(), name), default="")


class Session:
    """A compiled graph; safe in threads, each call has a request of its own."""

    def __init__(self, compiled: Any) -> None:
        """``compiled`` is OpenVINO's compiled model."""
        self._compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.outputs = tuple(_name_of(each.get_names()) for each in compiled.outputs)
        self.inputs = tuple(each.get_any_name() for each in compiled.inputs)

    def __call__(self, feed: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Outputs in the graph's order, the caller's own."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            found = request.infer(dict(feed), share_inputs=True, share_outputs=True)
            return [np.array(found[index], np.float32) for index in range(len(self.outputs))]
        finally:
            self._idle.put(request)


def weight_types(file: Path) -> frozenset[str]:
    """The types that the large constants of a graph are kept in; raises ModelBroken for a file that is no graph."""
    ov = _package()
    try:
        operations = ov.Core().read_model(file).get_ops()
    except RuntimeError as error:
        raise ModelBroken(f"{file}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from error
    constants = (each for each in operations if each.get_type_name() == "Constant")
    found = {
        each.get_element_type().get_type_name()
        for each in constants
        if math.prod(each.get_output_shape(0)) >= SMALLEST**2
    }
    return frozenset(TYPES[name] for name in found if name in TYPES)


def open_session(file: Path, dtype: str, cache: Path | None) -> Session:
    """A written graph, compiled for this processor; what was compiled is stored in ``cache``, where that can be written, for the next start.

    It computes in 16-bit floats where the processor has them, else in float32. Raises ModelBroken for a file it cannot use, ValueError where
    OpenVINO computes in another type than it was told to.
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
    if (
        computed != precision
    ):  # the hint is only that: without FP16, OpenVINO 2026.4 takes bfloat16 for float16, silently
        raise ValueError(
            f"OpenVINO was told to compute in {TYPES[precision]} and takes {TYPES.get(computed, computed)}; ask for dtype='float32'"
        )
    return Session(compiled)


def _can_hold(folder: Path) -> bool:
    """Whether files can be written into a folder, made where there is none; OpenVINO 2026.4 refuses to compile for one that cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def capable(core: Any) -> Collection[str]:
    """What OpenVINO says the processor can do."""
    found: Collection[str] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


def _computed_in(dtype: str, capabilities: Collection[str]) -> str:
    """OpenVINO's name of the type that a graph of ``dtype`` is computed in."""
    wanted = PRECISIONS[dtype]
    needed = CAPABILITIES.get(wanted)
    return wanted if needed is None or needed in capabilities else "f32"
