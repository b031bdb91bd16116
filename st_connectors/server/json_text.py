"""Read and write JSON, with orjson if it is installed; float32 numbers are written as their shortest text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from st_connectors.server.faults import Fault, FaultKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decode", "encode", "shortest"]

_NOT_JSON = "the body is not valid JSON"

encode: Callable[[object], bytes]
"""Return a value as JSON; arrays of any shape become lists of numbers."""

try:
    import orjson
except ImportError:

    def shortest(values: NDArray[np.float32]) -> list[float]:
        """Return float32 numbers [n] as floats whose text is as short as the numbers allow."""
        return [float(str(value)) for value in values]

    def _loads(body: bytes) -> Any:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)

    def _encode(value: object) -> bytes:
        return json.dumps(value, ensure_ascii=False, default=_plain, separators=(",", ":")).encode("utf-8", "replace")

    def _plain(value: object) -> object:
        if isinstance(value, np.ndarray):
            return shortest(value) if value.ndim == 1 and value.dtype == np.float32 else list(value)
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"JSON has no {type(value).__name__}")

    encode = _encode
else:

    def shortest(values: NDArray[np.float32]) -> list[float]:
        """Return float32 numbers [n] as floats whose text is as short as the numbers allow."""
        numbers: list[float] = orjson.loads(
            orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
        )
        return numbers

    def _loads(body: bytes) -> Any:
        return orjson.loads(body)

    def _encode(value: object) -> bytes:
        return orjson.dumps(value, default=_contiguous, option=orjson.OPT_SERIALIZE_NUMPY)

    def _contiguous(value: object) -> object:
        """Return an array in the order of memory that orjson needs."""
        if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
            return np.ascontiguousarray(value)
        raise TypeError(f"JSON has no {type(value).__name__}")

    encode = _encode


def decode(body: bytes) -> Any:
    """Return the value of a JSON text; raise Fault for any other text, and for NaN and infinity."""
    if not body:
        raise Fault(FaultKind.NOT_JSON, f"{_NOT_JSON}: it is empty")
    try:
        return _loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else _place(error)
        raise Fault(FaultKind.NOT_JSON, f"{_NOT_JSON}: {reason}") from None


def _place(error: ValueError) -> str:
    """Return where reading stopped, without any text of the body."""
    line, column = getattr(error, "lineno", None), getattr(error, "colno", None)
    return "it is not UTF-8" if line is None else f"see line {line}, column {column}"


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", "", 0)
