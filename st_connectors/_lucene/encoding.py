"""JSON for the two engines: dense vectors as the shortest text that is read back to the same float32, half as long as that of a double."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

__all__ = ["decoded", "encoded"]


def encoded(value: object) -> bytes:
    """A value as JSON; float32 arrays [n] as lists of numbers. Raises ValueError for an array with NaN or infinity."""
    try:
        return orjson.dumps(value, default=_array)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be written as JSON: {error.__cause__ or error}") from error


def decoded(text: str | bytes) -> Any:
    """The value that JSON says."""
    return orjson.loads(text)


def _array(value: object) -> orjson.Fragment:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"JSON has no {type(value).__name__}")
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    # Whoever reads numbers as doubles and rounds those rounds twice: about one number in 10 ** 9 would come back one bit off.
    if not np.array_equal(np.asarray(orjson.loads(text), dtype=value.dtype), value):
        if not np.isfinite(value).all():
            raise ValueError("JSON has neither NaN nor infinity")
        text = orjson.dumps(value.tolist())
    return orjson.Fragment(text)
