"""Write the part of a table that one task of an engine for distributed processing has."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

from st_connectors.ingest.arrow import ArrowLayout, Batches, write_arrow
from st_connectors.ingest.dead_letters import Target
from st_connectors.ingest.letters import letters_file
from st_connectors.ingest.report import IngestReport, Refusal
from st_connectors.layers.retry import RetryPolicy
from st_connectors.registry import absolute_address, open_store

__all__ = ["TaskWriter"]


def new_run() -> str:
    """Return a name for the files of one run that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class TaskWriter:
    """How tasks write to an existing collection; small, and pickled to each of them.

    ``layout``, ``batch`` and ``max_refused`` are arguments of :func:`st_connectors.ingest.arrow.write_arrow`.
    ``dead_letters`` is a folder, on a file system that all tasks share, in which each task writes its refused rows to
    ``RUN-TASK.jsonl``, a dead-letter file; None writes none. ``run`` is a new name for each writer. Raises ValueError
    for the address of an object store as ``dead_letters``.
    """

    url: str
    collection: str
    layout: ArrowLayout = field(default_factory=ArrowLayout)
    batch: int = 1000
    max_refused: int = 1000
    dead_letters: str | PathLike[str] | None = None
    run: str = field(default_factory=new_run)
    retry: RetryPolicy | None = None

    def __post_init__(self) -> None:
        if self.dead_letters is None:
            return
        if "://" in str(self.dead_letters):
            raise ValueError(f"dead_letters must be a folder that all tasks share, not {str(self.dead_letters)!r}")
        object.__setattr__(self, "dead_letters", str(Path(self.dead_letters).absolute()))  # tasks run elsewhere

    def write(self, batches: Batches, task: int | str) -> IngestReport:
        """Store the rows of the task with this number or name, and return its report, without the refused documents.

        Opens a store, and closes it afterwards. The writes are visible to searches after a ``refresh`` of any store.
        Raises the errors of ``write_arrow``, which can be pickled. A task that failed can be run again.
        """
        name = f"{self.run}-{task:06d}" if isinstance(task, int) else f"{self.run}-{task}"
        target = Target(absolute_address(self.url), self.collection, self.url.partition(":")[0])
        letters: AbstractContextManager[Callable[[Refusal], None] | None] = nullcontext()
        if self.dead_letters is not None:
            letters = letters_file(Path(self.dead_letters), name, target)
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
