"""Encode and decode JSON with short float32 numbers.

A float32 number is written as the shortest text that is read as the same number, which is half as long as a double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

__all__ = ["decode_json", "encode_json"]


def encode_json(value: object) -> bytes:
    """Return a value as JSON, with float32 arrays [n] as lists of numbers.

    Raises ValueError for an array with NaN or infinity.
    """
    try:
        return orjson.dumps(value, default=_encode_array)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be written as JSON: {error.__cause__ or error}") from error


def decode_json(text: str | bytes) -> Any:
    """Return the value of a JSON text."""
    return orjson.loads(text)


def _encode_array(value: object) -> orjson.Fragment:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"JSON has no {type(value).__name__}")
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    # A reader that parses a double and then rounds it to float32 rounds twice. About one number in 10 ** 9 would
    # differ; such an array is written as doubles.
    if not np.array_equal(np.asarray(orjson.loads(text), dtype=value.dtype), value):
        if not np.isfinite(value).all():
            raise ValueError("JSON has neither NaN nor infinity")
        text = orjson.dumps(value.tolist())
    return orjson.Fragment(text)
