"""Names of sentence-transformers that this package does not have, with what takes their place."""

from __future__ import annotations

__all__ = ["import_error"]

_GRAPHS = "st_core.export_model(name, folder, backend={backend!r}, dtype={dtype!r}) writes the graph of the whole model"
_TRAINING = "a training reads lists of mappings and tokenizes them itself; pass them to a trainer of st_core"
_MULTI_VECTOR = "models of one vector per token are not supported, except BGE-M3; use sentence_transformers"
_INSTEAD = {
    "export_dynamic_quantized_onnx_model": _GRAPHS.format(backend="onnx", dtype="int8"),
    "export_optimized_onnx_model": _GRAPHS.format(backend="onnx", dtype="float32"),
    "export_static_quantized_openvino_model": (
        _GRAPHS.format(backend="openvino", dtype="int8") + ", with fixed ranges if calibration= has texts"
    ),
    "load_onnx_model": "load the model with backend='onnx'",
    "load_openvino_model": "load the model with backend='openvino'",
    **dict.fromkeys(
        (
            *("InputExample", "ParallelSentencesDataset", "SentencesDataset", "resolve_ids"),
            *(f"{family}DataCollator" for family in ("CrossEncoder", "SentenceTransformer", "SparseEncoder")),
        ),
        _TRAINING,
    ),
    **{
        f"MultiVectorEncoder{part}": _MULTI_VECTOR
        for part in ("", "DataCollator", "ModelCardData", "Trainer", "TrainingArguments")
    },
    "LoggingHandler": "use logging.StreamHandler; progress bars are on standard error",
}


def import_error(module: str, name: str) -> Exception:
    """Return the error for a name that a module lacks: ImportError with advice, or AttributeError."""
    if name in _INSTEAD:
        return ImportError(f"{module} has no {name}: {_INSTEAD[name]}")
    return AttributeError(f"module {module!r} has no attribute {name!r}")
