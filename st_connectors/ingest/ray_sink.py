"""The datasink of Ray Data that writes blocks to a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from ray.data import Datasink
from ray.data.block import BlockAccessor

from st_connectors.ingest.arrow_task import TaskWriter
from st_connectors.ingest.report import IngestReport

__all__ = ["StoreSink"]


class StoreSink(Datasink):  # type: ignore[misc] # ray has no types
    """Write blocks to an existing collection; ``reports`` contains the reports of all tasks after the write."""

    def __init__(self, writer: TaskWriter) -> None:
        """Store the writer that each task uses."""
        self._writer = writer
        self.reports: tuple[IngestReport, ...] = ()

    def write(self, blocks: Iterable[Any], ctx: Any) -> IngestReport:
        """Write the blocks of one task and return its report."""
        return self._writer.write(_tables(blocks), ctx.task_idx)

    def on_write_complete(self, write_result: Any) -> None:
        """Store the reports of the tasks."""
        self.reports = tuple(each for each in write_result.write_returns if each is not None)

    def get_name(self) -> str:
        """Return the name of the write in Ray's output."""
        return f"Store({self._writer.collection})"

    @property
    def min_rows_per_write(self) -> int:
        """The number of rows to which Ray combines smaller blocks."""
        return self._writer.batch


def _tables(blocks: Iterable[Any]) -> Iterator[pa.Table]:
    """Yield the blocks that have rows as Arrow tables."""
    for block in blocks:
        accessor = BlockAccessor.for_block(block)
        if accessor.num_rows():
            yield accessor.to_arrow()
