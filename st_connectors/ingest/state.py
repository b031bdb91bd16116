"""The state of an ingest: what the store has acknowledged, in a file from which an interrupted ingest resumes.

The state advances only after the store has acknowledged a batch and the dead letters of the batch are written. After a
crash it may be up to ``SAVE_EVERY`` seconds behind; the batches since then are written again, which changes nothing,
because ids are deterministic and writes replace whole records.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from st_connectors.disk import OWN_FOLDER, sync_folder, write_atomically
from st_connectors.ingest.locks import locked
from st_connectors.ingest.positions import Positions
from st_connectors.ingest.report import IngestReport
from st_connectors.store import JsonValue

__all__ = ["Identity", "Resume", "State", "StateError", "StateFile", "open_state", "read_state"]

VERSION = 1
SAVE_EVERY = 1.0
"""The number of seconds between two writes of the file."""
RESTART = "start from the beginning with --restart (restart=True)"


_NOT_OURS = "name another file (--state FILE, resume=), or remove it"


class StateError(ValueError):
    """The state of an ingest cannot be read, written or resumed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an ingest reads, where it writes, and with which models and options; an ingest resumes only its own state.

    ``source`` and ``target`` describe the source and the collection, ``models`` maps fields to the fingerprints of
    their models, and ``options`` are those that decide what is stored.
    """

    source: Mapping[str, JsonValue]
    target: Mapping[str, JsonValue]
    models: Mapping[str, JsonValue] = field(default_factory=dict)
    options: Mapping[str, JsonValue] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "source": self.source,
            "target": self.target,
            "models": self.models,
            "options": self.options,
        }

    def differences(self, stored: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return the parts that differ from a stored identity, as pairs of the stored and the present value.

        The names of the parts are dotted: ``source.name``, ``models.dense``, ``options.split``.
        """
        changed: dict[str, tuple[Any, Any]] = {}
        for part, present in json.loads(json.dumps(self.to_json())).items():
            before = stored.get(part, {})
            for key in {**before, **present}:
                if before.get(key) != present.get(key):
                    changed[f"{part}.{key}"] = (before.get(key), present.get(key))
        return changed


@dataclass(frozen=True, slots=True)
class Resume:
    """The file with the state of an ingest, by which the same call continues after an interruption.

    ``source`` is the name of the source or its description, which must be the same when the ingest resumes. ``restart``
    starts from the beginning even if there is a state. ``accept_changes`` continues although the source, the models or
    the options have changed since. ``explain`` describes the change of a source in a sentence, from its former and its
    present description; without it, the parts that have changed are named.
    """

    path: Path
    source: str | Mapping[str, JsonValue] = "documents"
    restart: bool = False
    accept_changes: bool = False
    explain: Callable[[Mapping[str, Any], Mapping[str, Any]], str | None] | None = None

    @property
    def description(self) -> Mapping[str, JsonValue]:
        """The description of the source, with its name."""
        return {"name": self.source} if isinstance(self.source, str) else self.source


@dataclass(frozen=True, slots=True)
class State:
    """What was confirmed: intervals of positions in the source, the counts, and the source's own cursor, if it has one.

    ``ingest`` identifies an ingest with all its runs, and ``stored`` is the largest number of different documents that
    one run has stored.
    """

    ingest: str
    intervals: tuple[tuple[int, int], ...] = ()
    report: IngestReport = field(default_factory=IngestReport)
    cursor: JsonValue = None
    stored: int = 0


_COUNTS = ("read", "confirmed", "records", "refused_total", "cut", "split", "skipped", "replaced", "tokens")


def read_state(path: Path) -> tuple[State, Mapping[str, Any]] | None:
    """Return the state of a file and the identity that it belongs to; None if there is no file.

    Raises StateError for a file that cannot be read, is damaged, or was written by a newer version.
    """
    value = _read_object(path)
    if value is None:
        return None
    version = value.get("version")
    if isinstance(version, int) and version > VERSION:
        message = f"the state {path} has version {version}, and this package reads {VERSION}"
        raise StateError(f"{message}: install the newer package, or {RESTART}")
    try:
        return _parse(value), dict(value["identity"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"the state {path} is damaged; {RESTART}") from error


def _read_object(path: Path) -> dict[str, Any] | None:
    """Return the object of a state file; None if there is no file, or an empty one.

    Raises StateError for a file that is no state, so that a file of another program is never replaced.
    """
    if not path.exists():
        return None
    if not path.is_file():
        raise StateError(f"{path} is not a file: name a file for the state (--state FILE, resume=)")
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if text.strip() else None
    except (OSError, ValueError) as error:
        raise StateError(f"the state {path} cannot be read ({error}): {_NOT_OURS}") from error
    if value is not None and not (isinstance(value, dict) and {"version", "identity"} <= value.keys()):
        raise StateError(f"{path} is not a state of this package: {_NOT_OURS}")
    return value


def _parse(value: Mapping[str, Any]) -> State:
    counts = value["counts"]
    numbers: dict[str, Any] = {name: int(counts[name]) for name in _COUNTS}
    report = IngestReport(**numbers, filled=dict(counts["filled"]))
    intervals = tuple(Positions(value["confirmed"]).intervals)
    return State(str(value["ingest"]), intervals, report, value["cursor"], int(value["stored"]))


class StateFile:
    """The open file of a state. For use in one thread at a time."""

    def __init__(self, path: Path, identity: Identity, state: State, *, has_own_folder: bool = False) -> None:
        """Store the arguments; ``state`` is that of the last run, or an empty one.

        ``has_own_folder`` states whether the folder was created for the file, and is removed with it if it is empty.
        """
        self._has_own_folder = has_own_folder
        self.path = path
        self.initial = state
        self._identity = identity
        self._saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the state was last written more than ``SAVE_EVERY`` seconds ago."""
        return time.monotonic() - self._saved >= SAVE_EVERY

    def save(self, state: State) -> None:
        """Write the state durably and atomically; raise StateError if that fails, which leaves the former state."""
        counts = {name: getattr(state.report, name) for name in _COUNTS}
        value = {
            "version": VERSION,
            "ingest": state.ingest,
            "identity": self._identity.to_json(),
            "confirmed": state.intervals,
            "counts": counts | {"filled": dict(state.report.filled)},
            "cursor": state.cursor,
            "stored": state.stored,
        }
        try:
            write_atomically(self.path, [json.dumps(value, indent=1), "\n"])
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Remove the file durably, because the ingest is complete."""
        try:
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if self._has_own_folder:
            with suppress(OSError):  # it has dead letters, or the state of another ingest
                self.path.parent.rmdir()


def _unwritable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"the state cannot be written to {path}: {error.strerror}; free space, or choose another place "
        "(--state FILE, state=), and run the same ingest again"
    )


@contextmanager
def open_state(resume: Resume, identity: Identity) -> Iterator[StateFile]:
    """Open the state of an ingest for the duration of a ``with`` block, and write it once.

    Raises FileInUseError if another ingest of the same source into the same collection is running, LockError if no lock
    is possible, and StateError if the state cannot be read or written, or belongs to another source, models or options.
    """
    path, source, target = resume.path, identity.source, identity.target
    message = (
        f"another ingest of {source.get('name')} into {target.get('collection')!r} is running: "
        f"wait for it, or stop it; its state is {path}"
    )
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        stack.enter_context(locked(path, message))
        stored = None if resume.restart else read_state(path)
        state = _restarted(path) if stored is None else stored[0]
        if stored is not None and state.intervals:
            _check_same(resume, identity, stored[1])
        file = StateFile(path, identity, state, has_own_folder=path.parent.name == OWN_FOLDER)
        file.save(state)
        yield file


def _restarted(path: Path) -> State:
    """Return an empty state; it has the identifier of the state that it replaces, whose dead letters end with it.

    Raises StateError for a file of another program, which is never replaced.
    """
    before = _read_object(path) or {}
    return State(str(before.get("ingest") or uuid.uuid4().hex))


def _check_same(resume: Resume, identity: Identity, stored: Mapping[str, Any]) -> None:
    """Raise StateError if a state belongs to another ingest, unless changes are accepted."""
    changed = identity.differences(stored)
    if not changed or resume.accept_changes:
        return
    sentences = []
    if resume.explain is not None and any(name.startswith("source.") for name in changed):
        explained = resume.explain(stored.get("source", {}), identity.source)
        if explained:
            sentences.append(explained)
            changed = {name: values for name, values in changed.items() if not name.startswith("source.")}
    sentences += [_describe(name, *values) for name, values in changed.items()]
    raise StateError(
        f"the ingest that was interrupted cannot resume, because it has changed since: {'; '.join(sentences)}; "
        f"{RESTART}, or go on anyway with --accept-changes (accept_changes=True)"
    )


def _describe(name: str, before: Any, present: Any) -> str:
    part, _, key = name.partition(".")
    if part == "models":
        return f"the model of field {key!r} is another one"
    subject = {"source": "the source's", "target": "the", "options": "the option"}[part]
    return f"{subject} {key} is {_shown(present)}, not {_shown(before)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


def with_counts(state: State, report: IngestReport, positions: Positions, cursor: JsonValue) -> State:
    """Return the state after further documents were confirmed; ``report`` counts those of this run only."""
    return replace(
        state,
        intervals=tuple(positions.intervals),
        report=state.report + report,
        cursor=cursor,
        stored=max(state.stored, report.confirmed - report.replaced),
    )
