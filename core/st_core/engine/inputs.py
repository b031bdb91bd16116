"""The inputs of a call: texts and pairs of texts, under the names and in the kinds that sentence-transformers takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from st_core.engine.engine import UNSET

__all__ = ["as_list", "as_texts", "check_positive", "given_inputs", "one_or_many"]


def as_list(inputs: Any) -> list[Any]:
    """Several inputs as a list; raises ValueError for what holds none, or holds them in no order."""
    if isinstance(inputs, np.ndarray):
        inputs = inputs.tolist()
    if isinstance(inputs, (str, bytes, Mapping, set, frozenset)) or not isinstance(inputs, Iterable):
        raise ValueError(  # noqa: TRY004 - sentence-transformers' error
            f"the input is {_named(inputs)}; expected a list of texts"
        )
    return list(inputs)


def as_texts(inputs: Any) -> list[Any]:
    """Inputs as a list; raises ValueError for what is not text."""
    listed = as_list(inputs)
    for position, each in enumerate(listed):
        if not isinstance(each, str) and not _is_pair(each):
            raise ValueError(f"input {position} is {_named(each)}; expected text, or a pair of texts")
    return listed


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(each, str) for each in value)


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError for an argument that is given and is no positive integer."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def _named(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def one_or_many(inputs: Any) -> tuple[list[Any], bool]:
    """Inputs as a checked list, and whether it was a single text."""
    if isinstance(inputs, np.ndarray) and inputs.ndim == 0:
        inputs = inputs.item()
    if isinstance(inputs, str):
        return [inputs], True
    return as_texts(inputs), False


def given_inputs(inputs: Any, kwargs: dict[str, Any]) -> Any:
    """``inputs``, or what came by its old name ``sentences``, which is taken out of ``kwargs``."""
    if "sentences" not in kwargs:
        if inputs is UNSET:
            raise TypeError("inputs are missing: give a text or a list of texts")
        return inputs
    if inputs is not UNSET:
        raise TypeError("inputs and its old name sentences are both given; give one")
    return kwargs.pop("sentences")
