"""Parquet, Arrow and Feather files, read by pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from st_connectors.ingest.documents import Document, DocumentError, Place
from st_connectors.ingest.sources.arrow_values import values_of
from st_connectors.ingest.sources.rows import Read, Reading, check_columns, read_row
from st_connectors.ingest.sources.skip import Skip
from st_core.errors import missing_extra

__all__ = ["count_arrow", "count_parquet", "numbered_rows", "read_arrow", "read_parquet"]

ROWS = 1024
"""The number of rows that are converted together."""


def read_parquet(path: Path, reading: Reading) -> Read:
    """Yield the documents of rows; nulls are absent from the payload."""
    with _open_parquet(path) as file:
        check_columns(file.schema_arrow.names, reading, str(path))
        groups, rows = _groups_left(file, reading.skip)
        size, total = path.stat().st_size, max(1, file.metadata.num_rows)
        with reading.meter.reading(lambda: size * rows / total, size):
            batches = _intact(file.iter_batches(batch_size=ROWS, row_groups=groups), path)
            for number, row in numbered_rows(batches, reading.skip, _uuid_columns(file), start=rows):
                rows = number
                yield _document(row, number, reading, path)


def _groups_left(file: Any, skip: Skip) -> tuple[list[int], int]:
    """Return the row groups that are not skipped whole, and the number of rows before them."""
    first = rows = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if not skip.many(count):
            break
        first, rows = group + 1, rows + count
    return list(range(first, file.num_row_groups)), rows


def count_parquet(path: Path) -> int:
    """Return the number of rows."""
    with _open_parquet(path) as file:
        return int(file.metadata.num_rows)


def read_arrow(path: Path, reading: Reading) -> Read:
    """Yield the documents of rows of an Arrow file, Feather file or Arrow stream; nulls are absent from the payload."""
    with _open_arrow(path) as (schema, batches, tell):
        check_columns(schema.names, reading, str(path))
        with reading.meter.reading(tell, path.stat().st_size):
            for number, row in numbered_rows(_intact(batches, path), reading.skip):
                yield _document(row, number, reading, path)


def count_arrow(path: Path) -> int:
    """Return the number of rows."""
    with _open_arrow(path) as (_, batches, _):
        return sum(batch.num_rows for batch in batches)


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise missing_extra("parquet", f"reading {path}") from error
    with path.open("rb") as stream:
        try:
            file = parquet.ParquetFile(stream)
        except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError; a truncated file is an OSError
            raise ValueError(f"{path}: not Parquet: {error}") from error
        with file:
            yield file


@contextmanager
def _open_arrow(path: Path) -> Iterator[tuple[Any, Iterator[Any], Callable[[], int]]]:
    """Yield the schema, the batches, and a function that returns the position in the file."""
    try:
        import pyarrow as pa
        from pyarrow import ipc
    except ModuleNotFoundError as error:
        raise missing_extra("parquet", f"reading {path}") from error
    with path.open("rb") as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        try:
            reader = ipc.open_file(stream) if is_file else ipc.open_stream(stream)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not Arrow or Feather: {error}") from error
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else iter(reader)
        with reader:
            yield reader.schema, batches, stream.tell


def _uuid_columns(file: Any) -> frozenset[str]:
    """Return the columns of the logical type UUID, which older versions of pyarrow read as bytes."""
    columns = [file.schema.column(number) for number in range(len(file.schema))]
    return frozenset(column.path for column in columns if column.logical_type.type == "UUID")


def _document(row: Mapping[str, Any], number: int, reading: Reading, path: Path) -> Document | DocumentError:
    """Return the document of a row; a row with a value that cannot be read is refused."""
    return read_row(row, reading, Place(str(path), number, "row"))


def _intact(batches: Iterator[Any], path: Path) -> Iterator[Any]:
    """Yield the batches; raise ValueError for a damaged file."""
    try:
        yield from batches
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error


def numbered_rows(
    batches: Iterable[Any], skip: Skip, uuids: frozenset[str] = frozenset(), *, start: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of batches that are not skipped, without nulls, with their numbers after ``start``.

    Columns of ``uuids`` are converted from bytes.
    """
    for batch in batches:
        skipped = skip.up_to(batch.num_rows)
        yield from enumerate(_rows_of(batch.slice(skipped), uuids), start + skipped + 1)
        start += batch.num_rows


def _rows_of(batch: Any, uuids: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch without nulls; ``ROWS`` are converted at a time, those of ``uuids`` from bytes."""
    names = batch.schema.names
    for start in range(0, batch.num_rows, ROWS):
        part = batch.slice(start, ROWS)
        columns = [values_of(part.column(at), name, is_uuid=name in uuids) for at, name in enumerate(names)]
        for values in zip(*columns, strict=True):
            yield {name: value for name, value in zip(names, values, strict=True) if value is not None}
