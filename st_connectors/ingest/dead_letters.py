"""Dead letters: refused documents in a JSONL file, complete, so that they can be repaired and ingested again.

A letter has the fields of a dead letter of Data Prepper (``pluginId``, ``pluginName``, ``pipelineName``, ``failedData``
and ``timestamp``), and further ones: ``stage``, ``source``, ``position``, ``attempts``, ``error``, ``target``,
``ingest`` and ``origin``. A line is written durably before its document counts as done.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from st_connectors.disk import sync_folder, write_atomically
from st_connectors.ingest.documents import Document, Place
from st_connectors.ingest.locks import locked
from st_connectors.ingest.report import Refusal

__all__ = [
    "DeadLetterError",
    "DeadLetterFile",
    "DeadLetters",
    "Letter",
    "Target",
    "document_of",
    "letter_of",
    "lock_dead_letters",
    "open_dead_letters",
    "place_of",
    "read_letters",
    "replace_letters",
]

PLUGIN = "st-connectors"
_FLOAT = "$float"
"""The key of an object that stands for a number that JSON does not have."""

Letter = Mapping[str, Any]
"""One line of a dead-letter file."""


@dataclass(frozen=True, slots=True)
class DeadLetterFile:
    """The file for refused documents of an ingest, and what identifies the source.

    Letters of earlier ingests into the same collection are removed if their ``origin`` begins with this one, because
    their documents are read again. Without an origin, only those of this ingest are. ``origin`` is from the general
    to the special, such as the names of files and their sizes and times.
    """

    path: Path
    origin: tuple[str, ...] = ()


class DeadLetterError(ValueError):
    """A dead-letter file cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where documents were to be stored: the address without secrets, the collection, and the name of the store.

    ``split`` contains the arguments of the windows into which texts were split, None if they were not.
    """

    address: str
    collection: str
    store: str
    split: Mapping[str, int | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON, without the name of the store."""
        return {"address": self.address, "collection": self.collection, "split": self.split}


def letter_of(refusal: Refusal, target: Target, ingest: str, origin: Sequence[str] = ()) -> Letter:
    """Return the letter of a refused document; ``ingest`` and ``origin`` identify the ingest and its source."""
    error = "" if refusal.error is None else refusal.error.__name__
    return {
        "pluginId": PLUGIN,
        "pluginName": target.store,
        "pipelineName": target.collection,
        "failedData": {
            "index": target.collection,
            "indexId": refusal.id,
            "status": refusal.status,
            "message": refusal.reason,
            "document": _document(refusal),
        },
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "stage": refusal.stage,
        "source": None if refusal.place is None else refusal.place.to_json(),
        "position": refusal.position,
        "attempts": refusal.attempts,
        "error": {"type": error, "reason": refusal.reason},
        "target": target.to_json(),
        "ingest": ingest,
        "origin": list(origin),
    }


def _document(refusal: Refusal) -> Any:
    """Return the document of a refusal for JSON; None for one that is nested too deeply for JSON."""
    try:
        value = _plain(_as_read(refusal))
        json.dumps(value)
    except (RecursionError, ValueError):
        return None
    return value


def _as_read(refusal: Refusal) -> object:
    """Return the document of a refusal; after reading, the payload of a document contains its text."""
    document = refusal.document
    if isinstance(document, Document) and refusal.stage != "read":
        return {"id": document.id, **document.payload}
    return document


def document_of(letter: Letter) -> Any:
    """Return the document of a letter: a mapping, the text of a line that could not be read, or None."""
    return _restored(letter["failedData"]["document"])


def place_of(letter: Letter) -> Place | None:
    """Return the place of the document in its source, None if unknown."""
    place = letter["source"]
    return None if place is None else Place(place["source"], place["position"], place["unit"])


def _plain(value: object) -> Any:
    """Return the value for JSON: bytes as text with lone surrogates for bytes that are not UTF-8, others as text."""
    if value is None or isinstance(value, bool | int | str | float):
        return {_FLOAT: str(value)} if isinstance(value, float) and not math.isfinite(value) else value
    match value:
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case Document():
            return {"id": value.id, "text": value.text} | _plain({**value.payload, "id": value.id})
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)


def _restored(value: Any) -> Any:
    match value:
        case {"$float": str() as text} if len(value) == 1:
            return float(text)
        case dict():
            return {key: _restored(item) for key, item in value.items()}
        case list():
            return [_restored(item) for item in value]
        case _:
            return value


class DeadLetters:
    """A dead-letter file that is open for writing. For use in one thread at a time."""

    def __init__(self, file: DeadLetterFile, target: Target, ingest: str) -> None:
        """Store the arguments; the file is created by the first letter."""
        self.path = file.path
        self._origin = file.origin
        self._target = target
        self._ingest = ingest

    def write(self, refusals: Sequence[Refusal]) -> None:
        """Append the letters of refused documents durably; raise DeadLetterError if that fails.

        If it fails, the file is as it was before.
        """
        if not refusals:
            return
        letters = (letter_of(each, self._target, self._ingest, self._origin) for each in refusals)
        lines = "".join(f"{json.dumps(letter)}\n" for letter in letters)
        try:
            is_new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, lines.encode())
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise DeadLetterError(_unwritable(self.path, error)) from error


def _append(path: Path, data: bytes) -> None:
    """Append bytes to a file durably, or leave the file as it was."""
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # such as of a device; the first error says more
                file.truncate(end)
            raise


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"refused documents cannot be written to {path}: {error.strerror}; free space, or choose another file "
        "(--refused FILE, dead_letters=), and run the same ingest again"
    )


@contextmanager
def open_dead_letters(
    file: DeadLetterFile, target: Target, ingest: str, is_done: Callable[[int], bool] = lambda _: True
) -> Iterator[DeadLetters]:
    """Open a dead-letter file, which only one process may use at a time; new letters are appended.

    ``is_done`` states whether a position of this ingest is done. The letters of other positions, which an interrupted
    run wrote before it ended, are removed, because their documents are ingested again; so are those of earlier ingests
    of the same origin. Raises FileInUseError if another process uses the file, and DeadLetterError if it is not a
    dead-letter file or cannot be read or written.
    """
    path = file.path

    def remains(letter: Letter) -> bool:
        if letter["ingest"] == ingest:
            return is_done(letter["position"])
        return not _is_superseded(letter, file.origin, target)

    if path.exists() and not path.is_file():  # such as /dev/null
        if path.is_dir():
            raise DeadLetterError(f"refused documents cannot be written to {path}, which is a folder: name a file")
        yield DeadLetters(file, target, ingest)
        return
    with lock_dead_letters(path):
        if path.exists() and not (_is_complete(path) and all(map(remains, read_letters(path)))):
            replace_letters(path, filter(remains, read_letters(path)))
        yield DeadLetters(file, target, ingest)


def _is_superseded(letter: Letter, origin: tuple[str, ...], target: Target) -> bool:
    """Return whether a letter is of an earlier ingest of the same origin into the same collection."""
    place = (letter["target"]["address"], letter["target"]["collection"])
    before = letter.get("origin")
    is_same = isinstance(before, list) and bool(origin) and tuple(before[: len(origin)]) == origin
    return is_same and place == (target.address, target.collection)


@contextmanager
def lock_dead_letters(path: Path) -> Iterator[None]:
    """Lock a dead-letter file for the duration of a ``with`` block.

    Raises FileInUseError if it is in use, and LockError if no lock is possible.
    """
    message = (
        f"the dead-letter file {path} is in use by another ingest, sync or replay: wait for it, or name another file"
    )
    with locked(path, message):
        yield


def _is_complete(path: Path) -> bool:
    """Return whether the last line of a file was written completely."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_letters(path: Path) -> Iterator[Letter]:
    """Yield the letters of a file; a last line that was not written completely is left out.

    Raises DeadLetterError for a file that cannot be read, and for a line that is neither a dead letter nor, at the end
    of the file, the beginning of one.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                letter = _parse(line)
                if letter is not None:
                    yield letter
                elif line.endswith(b"\n") or not _begins(line):
                    raise DeadLetterError(
                        f"{path} line {number} is not a dead letter of this package: name a file written by --refused"
                    )
    except OSError as error:
        raise DeadLetterError(f"the dead-letter file {path} cannot be read: {error.strerror}") from error


def _begins(line: bytes) -> bool:
    """Return whether an incomplete line is the beginning of a letter of this package."""
    beginning = json.dumps({"pluginId": PLUGIN})[:-1].encode()
    return line[: len(beginning)] == beginning[: len(line)]


def _parse(line: bytes) -> Letter | None:
    """Return the letter of a line; None if it is none."""
    try:
        letter = json.loads(line)
    except ValueError:
        return None
    names = ("failedData", "stage", "source", "position", "attempts", "error", "target", "ingest")
    if not isinstance(letter, dict) or not all(name in letter for name in names):
        return None
    types = {"failedData": dict, "stage": str, "position": int, "attempts": int, "error": dict, "target": dict}
    if not all(isinstance(letter[name], kind) for name, kind in types.items()):
        return None
    parts = {"failedData": ("document", "indexId"), "error": ("reason",), "target": ("address", "collection")}
    return letter if all(name in letter[part] for part, keys in parts.items() for name in keys) else None


def replace_letters(path: Path, letters: Iterable[Letter]) -> None:
    """Replace the letters of a file atomically; raise DeadLetterError if that fails."""
    try:
        write_atomically(path, (f"{json.dumps(letter)}\n" for letter in letters))
    except OSError as error:
        raise DeadLetterError(_unwritable(path, error)) from error
