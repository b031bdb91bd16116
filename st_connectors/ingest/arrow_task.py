"""Write the part of a table that one task of an engine for distributed processing has."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace

from st_connectors.ingest.arrow import ArrowLayout, Batches, write_arrow
from st_connectors.ingest.letters import letters_file
from st_connectors.ingest.report import IngestReport
from st_connectors.layers.retry import RetryPolicy
from st_connectors.registry import open_store

__all__ = ["TaskWriter"]


@dataclass(frozen=True, slots=True)
class TaskWriter:
    """How tasks write to an existing collection; small, and pickled to each of them.

    ``layout``, ``batch`` and ``max_refused`` are arguments of :func:`st_connectors.ingest.arrow.write_arrow`.
    ``dead_letters`` is a folder in which each task writes its refused rows to ``RUN-TASK.jsonl``; None writes none.
    """

    url: str
    collection: str
    layout: ArrowLayout = field(default_factory=ArrowLayout)
    batch: int = 1000
    max_refused: int = 1000
    dead_letters: str | None = None
    run: str = "task"
    retry: RetryPolicy | None = None

    def write(self, batches: Batches, task: int | str) -> IngestReport:
        """Store the rows of the task with this number or name, and return its report, without the refused documents.

        Opens a store, and closes it afterwards. The writes are visible to searches after a ``refresh`` of any store.
        Raises the errors of ``write_arrow``, which can be pickled. A task that failed can be run again.
        """
        name = f"{self.run}-{task:06d}" if isinstance(task, int) else f"{self.run}-{task}"
        letters = nullcontext(None) if self.dead_letters is None else letters_file(self.dead_letters, name)
        with closing(open_store(self.url, self.collection, retry=self.retry)) as store, letters as on_refused:
            report = write_arrow(
                store,
                batches,
                self.layout,
                batch=self.batch,
                source=f"task {task}",
                max_refused=self.max_refused,
                on_refused=on_refused,
                refresh=False,
            )
        return replace(report, refused=tuple(replace(each, document=None) for each in report.refused))
