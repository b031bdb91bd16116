"""Count what an ingest has confirmed: in the running report, in its dead letters and in its state."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from st_connectors.errors import StoreError
from st_connectors.ingest.dead_letters import DeadLetterFile, DeadLetters, Target, open_dead_letters
from st_connectors.ingest.encode import Batch
from st_connectors.ingest.positions import Positions
from st_connectors.ingest.report import IngestFailed, IngestReport, Tally
from st_connectors.ingest.state import (
    RESTART,
    Identity,
    Resume,
    State,
    StateError,
    StateFile,
    open_state,
    with_counts,
)
from st_connectors.store import JsonValue, Store

__all__ = ["Ledger", "open_ledger"]


class Ledger:
    """What is confirmed of one ingest. For use in one thread at a time."""

    def __init__(self, max_refused: int, state: StateFile | None = None, letters: DeadLetters | None = None) -> None:
        """Begin, or continue from the last state of the file; at most ``max_refused`` refusals are reported."""
        self._file = state
        self._letters = letters
        self._initial = State("") if state is None else state.initial
        self._tally = Tally(max_refused, self._initial.report)
        self._cursors: dict[int, JsonValue] = {}
        self._cursor: Any = self._initial.cursor
        self.confirmed = Positions(self._initial.intervals)

    @property
    def initial(self) -> State:
        """The state at the start of this run."""
        return self._initial

    def add(self, batch: Batch, report: IngestReport) -> IngestReport:
        """Count a batch that the store has acknowledged, and return the report so far.

        Its dead letters are written first. The state is written if it is due. Raises DeadLetterError and StateError.
        """
        if self._letters is not None:
            self._letters.write(report.refused)
        self.confirmed.add(batch.start, batch.end)
        self._tally.add(report)
        if batch.cursor is not None:
            self._cursors[batch.end] = batch.cursor
            self._move_cursor()
        if self._file is not None and self._file.is_due:
            self.save()
        return self._tally.report()

    def _move_cursor(self) -> None:
        """Keep the cursor of the last batch before which everything is confirmed."""
        reached = [end for end in self._cursors if end <= self.confirmed.prefix]
        if reached:
            last = max(reached)
            self._cursor = {"position": last, "state": self._cursors[last]}
            for end in reached:
                del self._cursors[end]

    def report(self) -> IngestReport:
        """Return the report so far."""
        return self._tally.report()

    def save(self) -> None:
        """Write the state now, if there is a file; raise StateError if that fails."""
        if self._file is not None:
            self._file.save(with_counts(self._initial, self._tally.of_this_run, self.confirmed, self._cursor))

    def complete(self) -> None:
        """Remove the state, because the whole source is confirmed."""
        if self._file is not None:
            self._file.remove()


@contextmanager
def open_ledger(
    store: Store,
    target: Target,
    *,
    max_refused: int,
    resume: Resume | None = None,
    identity: Identity | None = None,
    dead_letters: DeadLetterFile | None = None,
) -> Iterator[Ledger]:
    """Open the state and the dead letters of an ingest, as far as they have files, for a ``with`` block.

    ``identity`` is required with ``resume``. Raises what ``open_state`` and ``open_dead_letters`` raise, StateError if
    the collection has fewer records than the ingest has stored, IngestFailed if the store cannot count them, and
    ValueError if both are the same file.
    """
    if resume is not None and dead_letters is not None and resume.path.resolve() == dead_letters.path.resolve():
        raise ValueError(
            f"the state and the refused documents need two files, not {resume.path} for both: "
            "name another one (resume=, dead_letters=)"
        )
    with ExitStack() as stack:
        file = None
        if resume is not None and identity is not None:
            file = stack.enter_context(open_state(resume, identity))
            if not resume.accept_changes:
                try:
                    _check_stored(store, file.initial.stored)
                except StoreError as error:
                    raise IngestFailed(Ledger(max_refused, file).report(), error) from error
        initial = State(uuid.uuid4().hex) if file is None else file.initial
        letters = None
        if dead_letters is not None:
            done = Positions(initial.intervals)
            letters = stack.enter_context(open_dead_letters(dead_letters, target, initial.ingest, done.__contains__))
        yield Ledger(max_refused, file, letters)


def _check_stored(store: Store, stored: int) -> None:
    """Raise StateError if a collection has fewer records than documents were stored in it."""
    if not stored:
        return
    store.refresh()
    count = store.count()
    if count < stored:
        raise StateError(
            f"the collection {store.schema.collection!r} has {count:,} records, and this ingest stored {stored:,}: it "
            f"was emptied or created again; {RESTART}, or go on anyway with --accept-changes (accept_changes=True)"
        )
