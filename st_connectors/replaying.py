"""Ingest the refused documents of a dead-letter file again, repaired or as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from st_connectors.index import Index, Split
from st_connectors.ingest import DocumentError, IngestFailed, IngestInterrupted, IngestReport, Progress, Refusal
from st_connectors.ingest.dead_letters import (
    DeadLetterError,
    Letter,
    Target,
    document_of,
    letter_of,
    lock_dead_letters,
    place_of,
    read_letters,
    replace_letters,
)
from st_connectors.ingest.sources import Reading
from st_connectors.ingest.sources.rows import row_document

__all__ = ["Repair", "replay", "targets_of"]

Repair = Callable[[Any], Mapping[str, Any] | None]
"""A function from a refused document, a mapping or the text of a line, to a repaired one; None leaves the letter."""


def targets_of(path: Path) -> list[Target]:
    """Return the different targets of the letters of a file; raise DeadLetterError for a file that is none."""
    targets: list[Target] = []
    for letter in read_letters(path):
        if (target := _target_of(letter)) not in targets:
            targets.append(target)
    return targets


def replay(
    path: Path,
    open_index: Callable[[Target], Index],
    *,
    repair: Repair | None = None,
    reading: Reading | None = None,
    batch: int = 512,
    progress: Progress | None = None,
) -> IngestReport:
    """Ingest the documents of a dead-letter file again; those that succeed leave the file, the others remain in it.

    ``open_index`` opens the collection of a target. ``repair`` is applied to each document first. ``reading`` states
    which keys of a row are the id and the text, for documents that were refused when they were read. A document
    replaces a stored document with the same id, also if that is newer.

    The file is replaced at the end, also after an error; if the process is killed, it stays as it is. Raises what
    ``Index.ingest`` raises, and DeadLetterError for a file that is none or cannot be written.
    """
    report = IngestReport()
    with lock_dead_letters(path):
        if not path.exists():
            raise DeadLetterError(f"there is no dead-letter file {path}")
        for target in targets_of(path):
            with closing(open_index(target)) as index:
                convert = partial(_repaired, repair=repair, reading=reading or Reading())
                ingest = partial(index.ingest, batch=batch, progress=progress, writers=1)
                report += _replay_target(path, target, convert, ingest)
    return report


def _replay_target(
    path: Path, target: Target, convert: Callable[[Letter], object], ingest: Callable[..., IngestReport]
) -> IngestReport:
    """Ingest the letters of one target, as ``convert`` returns them, and replace the file."""
    numbers: list[int] = []
    refused: dict[int, Refusal] = {}

    def documents() -> Iterator[object]:
        for number, letter in enumerate(read_letters(path)):
            if _target_of(letter) == target:
                value = convert(letter)
                if value is not None:
                    numbers.append(number)
                    yield value

    def note(refusal: Refusal) -> None:
        refused[numbers[refusal.position]] = refusal

    split: dict[str, Any] | None = None if target.split is None else dict(target.split)
    done = 0
    try:
        report = ingest(documents(), split=None if split is None else Split(**split), on_refused=note)
        done = report.read
    except (IngestFailed, IngestInterrupted) as error:
        done = error.report.read
        raise
    finally:
        stored = {number for number in numbers[:done] if number not in refused}
        replace_letters(path, _remaining(path, stored, refused))
    return report


def _target_of(letter: Letter) -> Target:
    target = letter["target"]
    return Target(target["address"], target["collection"], letter["pluginName"], target.get("split"))


def _repaired(letter: Letter, *, repair: Repair | None, reading: Reading) -> object:
    """Return what is ingested for a letter, DocumentErrors included; None for a letter that is left as it is."""
    document, place = document_of(letter), place_of(letter)
    identifier = str(letter["failedData"]["indexId"])
    if repair is not None:
        try:
            document = repair(document)
        except Exception as error:  # noqa: BLE001  # the function is the user's
            reason = f"repair raised {type(error).__name__}: {' '.join(str(error).split())}"
            return DocumentError(reason, identifier, place, document_of(letter))
        if document is None:
            return None
    elif isinstance(document, str):
        document = _parsed(document)
    if not isinstance(document, Mapping):
        return DocumentError(str(letter["error"]["reason"]), identifier, place, document)
    return row_document(document, reading, place) if letter["stage"] == "read" and place is not None else document


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _remaining(path: Path, stored: set[int], refused: Mapping[int, Refusal]) -> Iterable[Letter]:
    """Yield the letters of a file without those of stored documents; with the new reasons of refused ones."""
    for number, letter in enumerate(read_letters(path)):
        if number in refused:
            yield _again(letter, refused[number])
        elif number not in stored:
            yield letter


def _again(letter: Letter, refusal: Refusal) -> Letter:
    """Return a letter after another attempt, with the document as it was before and the new reason."""
    attempts = int(letter["attempts"]) + refusal.attempts
    new = letter_of(replace(refusal, attempts=attempts), _target_of(letter), str(letter["ingest"]))
    document = letter["failedData"]["document"]
    kept = {name: letter[name] for name in ("source", "position", "origin") if name in letter}
    stage = letter["stage"] if letter["stage"] == "read" else new["stage"]
    return {**new, **kept, "stage": stage, "failedData": {**new["failedData"], "document": document}}
