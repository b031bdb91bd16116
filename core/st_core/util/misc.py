"""Names of objects, imports by name and switches, under the import path of ``sentence_transformers.util.misc``."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from st_core.similarity import SimilarityFunction
from st_core.util._absent import refusals

__all__ = ["append_to_last_row", "disable_logging", "fullname", "import_from_string", "similarity_fct_name"]

__getattr__ = refusals(__name__)


def fullname(obj: object) -> str:
    """Return the module and the name of a class, or of the class of an object; builtins have no module."""
    kind = obj if isinstance(obj, type) else type(obj)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def similarity_fct_name(similarity_fct: Callable[..., object]) -> str:
    """Return the name of a function that scores vectors, with its settings.

    Settings are the keywords of a ``functools.partial``, or what an object's ``get_config_dict`` returns. The methods
    ``similarity`` and ``similarity_pairwise`` of a model have the name of the function that they call.
    """
    if isinstance(similarity_fct, partial):
        name = similarity_fct_name(similarity_fct.func)
        return _called(name, similarity_fct.keywords) if similarity_fct.keywords else name
    name = getattr(similarity_fct, "__name__", type(similarity_fct).__name__)
    chosen = getattr(getattr(similarity_fct, "__self__", None), "similarity_fn_name", None)
    if chosen is not None and name == "similarity":
        return similarity_fct_name(SimilarityFunction.to_similarity_fn(chosen))
    if chosen is not None and name == "similarity_pairwise":
        return similarity_fct_name(SimilarityFunction.to_similarity_pairwise_fn(chosen))
    settings = getattr(similarity_fct, "get_config_dict", None)
    return name if settings is None else _called(name, settings())


def _called(name: str, settings: dict[str, object]) -> str:
    """Return a call with keywords as text."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def import_from_string(dotted_path: str) -> Any:
    """Return the object at a dotted path, such as "torch.nn.Tanh"; raise ImportError if there is none."""
    module, _, name = dotted_path.rpartition(".")
    if not module:
        raise ImportError(f"expected a dotted path such as 'torch.nn.Tanh', got {dotted_path!r}")
    try:
        return getattr(import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"module {module!r} has no attribute {name!r}") from error


@contextmanager
def disable_logging(highest_level: int = logging.CRITICAL) -> Iterator[None]:
    """Drop log records up to a level within the block, in the whole process."""
    before = logging.root.manager.disable
    logging.disable(highest_level)
    try:
        yield
    finally:
        logging.disable(before)


def append_to_last_row(csv_path: str | PathLike[str], additional_data: Iterable[object]) -> bool:
    """Append values to the last row of a CSV file; return False, without a change, if it has no row but the header."""
    path = Path(csv_path)
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[list[object]] = [list(row) for row in csv.reader(file)]
    if len(rows) < 2:
        return False
    rows[-1].extend(additional_data)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return True
