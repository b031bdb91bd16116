"""The datasink of Ray Data that writes blocks to a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from ray.data import DataContext, Datasink
from ray.data.block import BlockAccessor

from st_connectors.chunks import CHUNK_KEY
from st_connectors.ingest.arrow_task import TaskWriter
from st_connectors.ingest.report import IngestFailed, IngestReport

__all__ = ["StoreSink"]


class StoreSink(Datasink):  # type: ignore[misc] # ray has no types
    """Write blocks to an existing collection; ``reports`` contains the reports of all tasks after the write."""

    def __init__(self, writer: TaskWriter) -> None:
        """Store the writer that each task uses."""
        self._writer = writer
        self.reports: tuple[IngestReport, ...] = ()

    def write(self, blocks: Iterable[Any], ctx: Any) -> IngestReport:
        """Write the blocks of one task and return its report.

        With a checkpoint, raises IngestFailed if a document has windows in other tasks too: Ray would count it as done
        after the first of them. The task then counts as not done.
        """
        if DataContext.get_current().checkpoint_config is None:
            return self._writer.write(_tables(blocks), ctx.task_idx)
        missing: dict[str, int] = {}
        report = self._writer.write(_count_windows(_tables(blocks), missing), ctx.task_idx)
        if missing:
            raise IngestFailed(report, ValueError(_CUT.format(next(iter(missing)))))
        return report

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


_CUT = (
    "Ray put the windows of {!r} into two blocks, of which a checkpoint could lose one: encode with a smaller "
    "batch_size, or raise DataContext.target_max_block_size"
)


def _count_windows(tables: Iterable[pa.Table], missing: dict[str, int]) -> Iterator[pa.Table]:
    """Yield the tables; then ``missing`` has the documents of which some windows are in no table, with their number."""
    for table in tables:
        chunks = table.column(CHUNK_KEY).to_pylist() if CHUNK_KEY in table.column_names else []
        for chunk in chunks:
            left = 0 if chunk is None else missing.pop(chunk["parent"], chunk["of"]) - 1
            if left:
                missing[chunk["parent"]] = left
        yield table


def _tables(blocks: Iterable[Any]) -> Iterator[pa.Table]:
    """Yield the blocks that have rows as Arrow tables."""
    for block in blocks:
        accessor = BlockAccessor.for_block(block)
        if accessor.num_rows():
            yield accessor.to_arrow()
