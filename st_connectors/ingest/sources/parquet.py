"""Parquet files, read by pyarrow."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from st_connectors.ingest.documents import Place
from st_connectors.ingest.sources.rows import Read, Reading, check_columns, row_document
from st_core.errors import missing_extra

__all__ = ["read_parquet"]


def read_parquet(path: Path, reading: Reading) -> Read:
    """Yield the documents of rows; nulls are absent from the payload."""
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise missing_extra("parquet", f"reading {path}") from error
    with path.open("rb") as stream, _open(parquet, stream, path) as table:
        check_columns(table.schema_arrow.names, reading, str(path))
        number = 0
        for batch in table.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                present = {key: _to_json(value) for key, value in row.items() if value is not None}
                yield row_document(present, reading, Place(str(path), number, "row"))


def _open(parquet: Any, stream: IO[bytes], path: Path) -> Any:
    try:
        return parquet.ParquetFile(stream)
    except (
        ValueError,
        OSError,
    ) as error:  # ArrowInvalid is a ValueError; a truncated file may raise OSError (pyarrow 22)
        raise ValueError(f"{path}: not Parquet: {error}") from error


def _to_json(value: Any) -> Any:
    """Convert dates and times to ISO 8601 and decimals to floats; the store refuses other values that are not JSON."""
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return float(value)
        case list():
            return [_to_json(item) for item in value]
        case dict():
            return {key: _to_json(item) for key, item in value.items()}
        case _:
            return value
