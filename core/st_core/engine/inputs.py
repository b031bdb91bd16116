"""The inputs of a call: texts and pairs of texts, with the argument names and types of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypedDict

import numpy as np

from st_core.renamed import warn_of_old_name

__all__ = [
    "UNSET",
    "CallArguments",
    "Input",
    "Unset",
    "as_list",
    "as_texts",
    "check_positive",
    "is_singular",
    "one_or_many",
    "pop_inputs",
]

Input: TypeAlias = str | Sequence[str]
"""A text, or a pair of texts."""


class CallArguments(TypedDict, total=False):
    """The keyword-only arguments of a call.

    ``task`` selects a route of a router. ``processing_kwargs`` may contain ``max_length``, ``truncation`` and the
    arguments of a chat template. ``sentences`` is the old name of ``inputs``.
    """

    task: str | None
    processing_kwargs: Mapping[str, object] | None
    sentences: object


class Unset:
    """The type of ``UNSET``, the default of arguments for which None is a valid value."""

    def __reduce__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


def as_list(inputs: object) -> list[Any]:
    """Return a collection of inputs as a list.

    Raises ValueError for a single value, an unordered collection, and a table, which would count as its column names.
    """
    if isinstance(inputs, np.ndarray):
        inputs = inputs.tolist()
    if _is_table(inputs):
        raise ValueError(
            f"the input is {_type_name(inputs)}, a table; expected a list of texts: pass one column, or for pairs "
            "list(zip(first_column, second_column))"
        )
    if hasattr(inputs, "to_pylist"):  # a column of pyarrow
        inputs = inputs.to_pylist()
    if isinstance(inputs, (str, bytes, Mapping, set, frozenset)) or not isinstance(inputs, Iterable):
        raise ValueError(  # noqa: TRY004 - sentence-transformers' error
            f"the input is {_type_name(inputs)}; expected a list of texts"
        )
    return list(inputs)


def _is_table(value: object) -> bool:
    """Return whether a value is a table of pandas, polars, pyarrow or the datasets library; a column is not one."""
    return not isinstance(value, Mapping) and (hasattr(value, "columns") or hasattr(value, "column_names"))


def _unwrapped(value: object) -> object:
    """Return the text of ``{"text": "…"}``, the form that sentence-transformers shares with other modalities."""
    if isinstance(value, Mapping) and set(value) == {"text"} and isinstance(value["text"], str):
        return value["text"]
    return value


def as_texts(inputs: object) -> list[Input]:
    """Return inputs as a list; raise ValueError unless each is a text, a text as ``{"text": "…"}``, or a pair."""
    listed: list[Any] = [_unwrapped(each) for each in as_list(inputs)]
    for position, each in enumerate(listed):
        if not isinstance(each, str) and not _is_pair(each):
            raise ValueError(f"input {position} is {_type_name(each)}; expected text, or a pair of texts")
    return listed


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(each, str) for each in value)


def check_positive(name: str, value: object) -> None:
    """Raise ValueError unless an argument is a positive integer or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def _type_name(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def one_or_many(inputs: object) -> tuple[list[Input], bool]:
    """Return the inputs as a list of texts and pairs of texts, and whether the input was a single text."""
    if isinstance(inputs, np.ndarray) and inputs.ndim == 0:
        inputs = inputs.item()
    inputs = _unwrapped(inputs)
    if isinstance(inputs, str):
        return [inputs], True
    return as_texts(inputs), False


def is_singular(inputs: object) -> bool:
    """Return whether inputs are one input and not a batch, also for inputs that no model of this package reads.

    The answer for those is that of sentence-transformers: a list of chat messages is one input, other lists, tuples and
    arrays of objects are batches, and everything else is one input.
    """
    try:
        return one_or_many(inputs)[1]
    except (TypeError, ValueError):
        if isinstance(inputs, list) and isinstance(inputs[0], Mapping):
            return {"role", "content"} <= set(inputs[0])
        is_array = isinstance(inputs, np.ndarray) and inputs.dtype.kind in "UO"
        return not (is_array or isinstance(inputs, (list, tuple)))


def pop_inputs(inputs: object, kwargs: CallArguments) -> object:
    """Return ``inputs``, or the argument ``sentences``, its old name, after removing it from ``kwargs``.

    Raises TypeError unless exactly one of the two arguments is set.
    """
    if "sentences" not in kwargs:
        if inputs is UNSET:
            raise TypeError("inputs are missing; pass a text or a list of texts")
        return inputs
    if inputs is not UNSET:
        raise TypeError("inputs and its old name sentences are both set; pass one")
    warn_of_old_name("the argument sentences is now named inputs")
    return kwargs.pop("sentences")
