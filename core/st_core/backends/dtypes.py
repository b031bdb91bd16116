"""The names of the backends, and of the dtypes that models are computed or stored in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "BACKENDS",
    "FLOATS",
    "GRAPHS",
    "RUNTIMES",
    "STATIC",
    "STORED_TYPES",
    "check_dtype",
    "dtype_name",
    "dtype_of_precision",
    "stored_type",
]

RUNTIMES = ("onnx", "openvino")
"""The backends that run graphs."""

BACKENDS = ("torch", *RUNTIMES, "auto")

FLOATS = ("float32", "float16", "bfloat16", "float64")
"""The torch dtypes that models are computed in, by names that all backends share."""

GRAPHS = ("float32", "int8", "float16", "bfloat16")
"""The dtypes of graph weights, on either runtime."""

STATIC = "-static"
"""Suffix of a graph's precision for statically calibrated int8; ``dtype`` never contains it."""

STORED_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""Dtype names by the names that safetensors files use for them."""


def dtype_name(dtype: object) -> str | None:
    """Return the name of a dtype such as ``torch.float16`` or "float16"; None for None."""
    return None if dtype is None else str(dtype).removeprefix("torch.")


def check_dtype(backend: str, dtype: object) -> str | None:
    """Return the name of a requested dtype, None for the default.

    Raises ValueError for an unknown backend, and for a dtype that the backend does not compute in.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    name = dtype_name(dtype)
    if name == "":
        raise ValueError("dtype is empty; name a type, or leave out dtype")
    if backend == "auto" and name not in (None, "float32"):
        raise ValueError(
            f"backend='auto' chooses among backends that give the same float32 numbers; for dtype={name!r} name the "
            "backend"
        )
    if backend == "torch" and name == "int8":
        raise ValueError("dtype='int8' needs backend='onnx' or backend='openvino'; torch computes in floats")
    known = GRAPHS if backend in RUNTIMES else (*FLOATS, "auto")
    if name is not None and name not in known:
        raise ValueError(f"unknown dtype {name!r} for backend {backend!r}; expected one of {', '.join(known)}")
    return name


def dtype_of_precision(backend: str, precision: str) -> str | None:
    """Return the ``dtype`` argument that loads a model in a precision reported by ``describe``.

    None on torch and auto, and for a precision that the backend has no graphs in.
    """
    name = precision.removesuffix(STATIC)
    return name if backend in RUNTIMES and name in GRAPHS else None


def stored_type(path: Path, config: Mapping[str, object]) -> str | None:
    """Return the common dtype of all tensors in a safetensors file.

    None where the tensors have several dtypes, where the configuration names another dtype, and where the file cannot
    be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError):
        return None
    stored = STORED_TYPES.get(types.pop()) if len(types) == 1 else None
    configured = config.get("dtype") or config.get("torch_dtype")
    return stored if configured in (None, stored) else None
