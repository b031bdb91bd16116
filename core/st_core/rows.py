"""Data sets in files: rows of JSON Lines and CSV files are read by their offsets, those of Parquet files from Arrow.

A row is a mapping from columns to values. The files stay where they are and must not change during a training.
"""

from __future__ import annotations

import csv
import json
import os
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from st_core.errors import missing_extra

__all__ = ["LABELS", "FileRows", "is_file_set", "rows_of_files"]

LABELS: Final = ("label", "labels", "score", "scores")
"""The names of columns that contain labels, as in sentence-transformers."""

FileSet: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]
"""The path of a file, or those of several files of the same columns."""

Row: TypeAlias = Mapping[str, Any]


class FileRows(ABC):
    """The rows of one file, read by position."""

    def __init__(self, path: Path) -> None:
        """Find the rows; raise ValueError for a file that is not of the format."""
        self.path = path

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def __getitem__(self, position: int) -> Row:
        """Return a row; raise ValueError, with the line, where it is not of the format."""


class _TextRows(FileRows):
    """Rows of a text file, which begin at known offsets."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._starts, self._lines = array("Q"), array("Q")
        with path.open("rb") as file:
            lines = _Lines(file)
            self.prepare(lines)
            for start, number in self.begun(lines):
                self._starts.append(start)
                self._lines.append(number)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, position: int) -> Row:
        with self.path.open("rb") as file:
            file.seek(self._starts[position])
            try:
                return self.parsed(_Lines(file))
            except (ValueError, csv.Error, RecursionError) as error:
                raise ValueError(f"{self.path} line {self._lines[position]}: {error}") from error

    def prepare(self, lines: _Lines) -> None:
        """Read what stands before the rows."""

    @abstractmethod
    def begun(self, lines: _Lines) -> Iterator[tuple[int, int]]:
        """Yield the offset and the line number of each row."""

    @abstractmethod
    def parsed(self, lines: _Lines) -> Row:
        """Return the first row."""


class _Lines:
    """The lines of a UTF-8 file as text, with the offset and the number of the next one."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.offset, self.number = 0, 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line: bytes = next(self._file)
        self.offset, self.number = self.offset + len(line), self.number + 1
        return line.decode("utf-8-sig" if self.number == 2 else "utf-8")


class JsonLines(_TextRows):
    """The objects of a JSON Lines file; blank lines are no rows."""

    def begun(self, lines: _Lines) -> Iterator[tuple[int, int]]:
        """Yield the offset and the number of each line that is not blank."""
        while True:
            start, number = lines.offset, lines.number
            line = next(lines, None)
            if line is None:
                return
            if not line.isspace():
                yield start, number

    def parsed(self, lines: _Lines) -> Row:
        """Return the object of the first line."""
        value = json.loads(next(lines))
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object, got {type(value).__name__}")  # noqa: TRY004 - a fault of the data
        return value


class CsvRows(_TextRows):
    """The rows of a CSV file, or of a TSV file; labels that are JSON numbers or lists are converted to them."""

    def prepare(self, lines: _Lines) -> None:
        """Read the header."""
        self.delimiter = "\t" if self.path.suffix.lower() in (".tsv", ".tab") else ","
        self.columns = next(csv.reader(lines, delimiter=self.delimiter), [])
        repeated = [name for place, name in enumerate(self.columns) if name in self.columns[:place]]
        if repeated:
            raise ValueError(f"{self.path}: the header repeats {repeated[0]!r}; rename a column")

    def begun(self, lines: _Lines) -> Iterator[tuple[int, int]]:
        """Yield the offset and the number of the first line of each row, which may have several."""
        rows = csv.reader(lines, delimiter=self.delimiter)
        while True:
            start, number = lines.offset, lines.number
            try:
                cells = next(rows, None)
            except csv.Error as error:
                raise ValueError(f"{self.path} line {number}: {error}") from error
            if cells is None:
                return
            if cells:
                yield start, number

    def parsed(self, lines: _Lines) -> Row:
        """Return the first row."""
        cells = next(csv.reader(lines, delimiter=self.delimiter))
        if len(cells) != len(self.columns):
            raise ValueError(f"expected {len(self.columns)} cells, got {len(cells)}")
        return {name: _label(cell) if name in LABELS else cell for name, cell in zip(self.columns, cells, strict=True)}


def _label(cell: str) -> object:
    """Return the number or the list that a cell contains as JSON, else the cell."""
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    return value if isinstance(value, (int, float, list)) else cell


class ParquetRows(FileRows):
    """The rows of a Parquet file, which is in memory as an Arrow table."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            from pyarrow import ArrowInvalid, parquet
        except ImportError as error:
            raise missing_extra("parquet", f"{path}") from error
        try:
            self._table = parquet.read_table(path)
        except ArrowInvalid as error:
            raise ValueError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, position: int) -> Row:
        row: Row = self._table.slice(position, 1).to_pylist()[0]
        return row


_KINDS: Mapping[str, type[FileRows]] = {
    **dict.fromkeys((".jsonl", ".ndjson"), JsonLines),
    **dict.fromkeys((".csv", ".tsv", ".tab"), CsvRows),
    **dict.fromkeys((".parquet", ".pq"), ParquetRows),
}


class _Joined(Sequence[Row]):
    """The rows of several files, one file after another."""

    def __init__(self, files: Sequence[FileRows]) -> None:
        self._files = files
        self._ends = list(accumulate(len(each) for each in files))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, position: Any) -> Any:
        if not 0 <= position < len(self):
            raise IndexError(position)
        place = bisect_right(self._ends, position)
        before = self._ends[place - 1] if place else 0
        return self._files[place][position - before]


def is_file_set(value: object) -> bool:
    """Return whether a data set is a path, or a list of paths."""
    if isinstance(value, (str, PathLike)):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, (str, PathLike)) for each in value)


def rows_of_files(paths: FileSet) -> Sequence[Row]:
    """Return the rows of files.

    Raises OSError for a file that cannot be read, and ValueError for one of an unknown format, a file without rows, and
    files of different columns.
    """
    listed: Iterable[Any] = [paths] if isinstance(paths, (str, PathLike)) else paths
    files = [_opened(Path(os.fspath(path))) for path in listed]
    columns = [sorted(each[0]) for each in files]
    for file, names in zip(files, columns, strict=True):
        if names != columns[0]:
            raise ValueError(
                f"{file.path} has the columns {', '.join(names)}, and {files[0].path} {', '.join(columns[0])}; pass "
                "files of the same columns, or data sets by name"
            )
    return _Joined(files)


def _opened(path: Path) -> FileRows:
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"{path}: the suffix {path.suffix!r} is not read; expected one of {', '.join(_KINDS)}, without compression"
        )
    try:
        rows = kind(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    if not len(rows):
        raise ValueError(f"{path}: no rows")
    return rows
