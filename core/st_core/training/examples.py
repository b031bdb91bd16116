"""The rows of a data set as examples: texts in the order of the loss, and a label, all checked before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xxhash

from st_core.rows import is_file_set, rows_of_files
from st_core.training.columns import Contract, Label, Matching
from st_core.training.known import Known

__all__ = ["Concatenated", "Example", "Examples", "columns_of", "named_sets"]

Rows = Any
"""A list of mappings, a ``datasets.Dataset`` or another object with a length whose items are mappings."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row: the name of its data set, its texts in the order of the loss, its label, and the ids of its texts."""

    name: str
    texts: tuple[Any, ...]
    label: Any
    ids: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Examples:
    """The rows of one data set, read by position."""

    name: str
    rows: Rows
    matching: Matching
    known: Known | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, position: int) -> Example:
        """Return a row."""
        row = self.rows[int(position)]
        label = None if self.matching.label is None else row[self.matching.label]
        ids = () if self.known is None else self.known.ids_of(row)
        return Example(self.name, tuple(row[name] for name in self.matching.texts), label, ids)

    def __iter__(self) -> Iterator[Example]:
        return (self[position] for position in range(len(self)))

    def digest(self) -> str:
        """Return a hash of all texts and labels, in order, and of known positives."""
        state = xxhash.xxh3_128()
        for example in self:
            state.update(repr((example.texts, example.label, *example.ids)).encode())
        positives = {} if self.known is None else self.known.positives
        for query in sorted(positives):
            state.update(repr((query, sorted(positives[query]))).encode())
        return state.hexdigest()

    def check(self, contract: Contract, loss: str) -> None:
        """Raise ValueError for the first row that a loss cannot read, with the row and the column."""
        if not len(self):
            raise ValueError(f"the data set{_named(self.name)} has no rows")
        for position, row in enumerate(self._whole_rows()):
            for index, column in enumerate(self.matching.texts):
                is_list = contract.has_lists and index == 1
                _check_text(row, column, position, self.name, is_list=is_list)
            if self.matching.label is not None:
                self._check_label(row, position, contract, loss)

    def _whole_rows(self) -> Iterator[Mapping[str, Any]]:
        for position in range(len(self)):
            row = self.rows[position]
            if not isinstance(row, Mapping):
                raise ValueError(  # noqa: TRY004 - a fault of the data
                    f"row {position}{_named(self.name)} is a {type(row).__name__}; expected a mapping from columns to "
                    "values"
                )
            yield row

    def _check_label(self, row: Mapping[str, Any], position: int, contract: Contract, loss: str) -> None:
        name = cast("str", self.matching.label)
        where = f"row {position}, column {name!r}{_named(self.name)}"
        if name not in row:
            raise ValueError(f"{where}: the label is missing; {loss} needs {contract.label}")
        fault = None if contract.label is Label.ANY else _label_fault(row[name], contract)
        if fault is not None:
            raise ValueError(f"{where}: {fault}; {loss} needs {contract.label}{_range(contract)}")
        if contract.label is Label.LIST and len(row[name]) != len(row[self.matching.texts[1]]):
            raise ValueError(
                f"{where}: {len(row[name])} labels for {len(row[self.matching.texts[1]])} documents; expected one each"
            )


def _named(name: str) -> str:
    return f" of {name!r}" if name else ""


def _check_text(row: Mapping[str, Any], column: str, position: int, name: str, *, is_list: bool) -> None:
    where = f"row {position}, column {column!r}{_named(name)}"
    if column not in row:
        raise ValueError(f"{where}: the value is missing; all rows need the same columns")
    value = row[column]
    if is_list:
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(each, str) for each in value):
            raise ValueError(f"{where}: expected a list of texts, got {_shown(value)}")
    elif not isinstance(value, str):
        hint = "" if not isinstance(value, (int, float)) else "; labels are in a column named label or score"
        raise ValueError(f"{where}: expected text, got {_shown(value)}{hint}")


def _shown(value: object) -> str:
    text = repr(value)
    return "None" if value is None else f"{text[:40]}{'…' if len(text) > 40 else ''} ({type(value).__name__})"


def _range(contract: Contract) -> str:
    if contract.low == -np.inf and contract.high == np.inf:
        return ""
    return f" from {contract.low:g} to {contract.high:g}; pass label_range=[low, high] to allow others"


_AXES = {Label.SCORES: (0, 1), Label.VECTOR: (1, 2), Label.LIST: (1,)}
"""The numbers of axes that a label may have; others are single numbers."""


def _label_fault(value: Any, contract: Contract) -> str | None:
    """Return what is wrong with a label, None if it has the form and the range of the contract."""
    try:
        numbers = np.asarray(value)
    except ValueError:  # lists of different lengths
        numbers = np.asarray("")
    form = contract.label
    if numbers.dtype.kind not in "iuf" or numbers.ndim not in _AXES.get(form, (0,)):
        return f"got {_shown(value)}"
    is_wrong = (
        ~np.isfinite(numbers)
        | (numbers < contract.low)
        | (numbers > contract.high)
        | ((form is Label.BINARY) & ~np.isin(numbers, (0, 1)))
        | ((form is Label.CLASS) & ((numbers < 0) | (numbers != np.floor(numbers))))
    )
    return f"got {_shown(value)}" if is_wrong.any() else None


def columns_of(rows: Rows, name: str = "") -> list[str]:
    """Return the columns of a data set; raise TypeError for an object that is no data set."""
    own = getattr(rows, "column_names", None)
    if isinstance(own, (list, tuple)):
        return list(own)
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__") or isinstance(rows, str):
        raise TypeError(
            f"the data set{_named(name)} is a {type(rows).__name__}; expected a list of mappings, a path of a JSONL, "
            "CSV or Parquet file, a datasets.Dataset, or another sequence of mappings"
        )
    if not len(rows):
        raise ValueError(f"the data set{_named(name)} has no rows")
    first = rows[0]
    if not isinstance(first, Mapping):
        raise TypeError(f"row 0{_named(name)} is a {type(first).__name__}; expected a mapping from columns to values")
    return list(first)


def named_sets(data: Any) -> dict[str, Rows]:
    """Return the rows of data sets by name; a single data set has the name "", and files are opened."""
    if isinstance(data, Mapping):
        if not data:
            raise ValueError("the mapping of data sets is empty; expected at least one data set")
        return {str(name): _rows(rows) for name, rows in data.items()}
    return {"": _rows(data)}


def _rows(data: Any) -> Rows:
    """Return the rows of a data set, which may be the path of a file or those of several."""
    return rows_of_files(data) if is_file_set(data) else data


@dataclass(frozen=True, slots=True)
class Concatenated:
    """Several data sets, whose positions continue from set to set."""

    datasets: tuple[Examples, ...]

    def __len__(self) -> int:
        """Return the number of rows of all sets."""
        return sum(len(each) for each in self.datasets)

    def __getitem__(self, position: int) -> Example:
        """Return a row."""
        for each in self.datasets:
            if position < len(each):
                return each[position]
            position -= len(each)
        raise IndexError(position)
