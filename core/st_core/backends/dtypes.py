"""The dtypes that models are computed in or their weights stored in, by the names that callers use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["FLOATS", "GRAPHS", "STATIC", "STORED_TYPES", "stored_type"]

FLOATS = ("float32", "float16", "bfloat16", "float64")
"""The dtypes of torch, by the only names that all backends know."""

GRAPHS = ("float32", "int8", "float16", "bfloat16")
"""The dtypes of graph weights, on either runtime."""

STATIC = "-static"
"""Suffix that marks statically calibrated int8 in a graph's precision; ``dtype`` never contains it."""

STORED_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""The dtypes of safetensors files by their names there."""


def stored_type(path: Path, config: Mapping[str, object]) -> str | None:
    """Return the dtype of all tensors in a safetensors file.

    None where there are several, where the configuration names another one, and where the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        return None
    stored = STORED_TYPES.get(types.pop()) if len(types) == 1 else None
    configured = config.get("dtype") or config.get("torch_dtype")
    return stored if configured in (None, stored) else None
