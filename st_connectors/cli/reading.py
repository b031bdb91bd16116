"""The documents of a command's sources, read from any position, and the files of an ingest beside its sources."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from st_connectors.cli.sources import Input, check_unchanged, describe_inputs, measure, read_inputs

if TYPE_CHECKING:
    from st_connectors.ingest.sources import Identity, Reading

__all__ = [
    "Files",
    "InputDocuments",
    "SourceChangedError",
    "explain_change",
    "files_beside",
    "origin_of",
    "same_command",
]

SAMPLED = 64
"""The number of documents after which the expected number is estimated anew."""


class SourceChangedError(RuntimeError):
    """A source changed while it was read."""


class InputDocuments:
    """The documents of the inputs of a command, counted, with an estimate of how many there are."""

    def __init__(
        self,
        inputs: Sequence[Input],
        reading: Reading,
        convert: Callable[[Any], object] = lambda value: value,
        again: str = "run the same command again",
    ) -> None:
        """Describe the inputs as they are now; ``convert`` is applied to each document.

        ``again`` says what to do about inputs that change while they are read.

        Raises OSError if a file is missing.
        """
        self._inputs = inputs
        self._reading = reading
        self._convert = convert
        self._again = again
        self.identity: Identity = describe_inputs(inputs, reading)
        self.read = 0
        """The number of documents read so far, skipped ones included."""
        self.expected: float | None = None
        """The estimated number of documents; None if the size of the inputs is unknown."""

    def __iter__(self) -> Iterator[object]:
        return self.starting_at(0)

    def starting_at(self, position: int) -> Iterator[object]:
        """Yield the documents from a position on.

        Raises StateError if there are fewer, and at the end SourceChangedError if the inputs have changed meanwhile.
        """
        from st_connectors.ingest.sources import Skip
        from st_connectors.ingest.state import RESTART, StateError

        meter = measure(self._inputs)
        reading = replace(self._reading, skip=Skip(position), meter=meter)
        self.read = position
        for document in read_inputs(self._inputs, reading):
            self.read += 1
            if self.read % SAMPLED == 0:
                share = meter.share()
                self.expected = self.read / share if share else None
            yield self._convert(document)
        if reading.skip.remaining:
            raise StateError(
                f"the sources have {position - reading.skip.remaining:,} documents, and {position:,} were confirmed: "
                f"they are others, or were shortened; {RESTART}"
            )
        self.expected = float(self.read)
        change = check_unchanged(self.identity, self._inputs, self._reading)
        if change is not None:
            raise SourceChangedError(
                f"the source changed while it was read ({change}): what was read is stored; {self._again}"
            )


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an ingest: its state, and its dead letters; None for none."""

    state: Path | None
    dead_letters: Path | None


def files_beside(inputs: Sequence[Input], identity: Identity, address: str, collection: str) -> Files:
    """Return the default files of an ingest, in a hidden folder beside or in its first source.

    Their names depend on the sources and the target, so that each ingest has its own. There are none if a source is
    standard input, a pipe or a query, which have no place, or if the folder cannot be written.
    """
    import xxhash

    from st_connectors.disk import OWN_FOLDER

    if not _are_readable_again(inputs):
        return Files(None, None)
    first = next(path.absolute() for each in inputs if (path := each.path) is not None)
    folder = (first if first.is_dir() else first.parent) / OWN_FOLDER
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return Files(None, None)
    key = "\0".join((*(source.name for source in identity.sources), address, collection))
    name = f"{_file_name(collection)}-{xxhash.xxh3_64_hexdigest(key.encode())[:8]}"
    return Files(folder / f"{name}.state.json", folder / f"{name}.refused.jsonl")


def origin_of(inputs: Sequence[Input], identity: Identity) -> tuple[str, ...]:
    """Return what identifies the sources of dead letters: by their names, and by their contents and the options.

    It is empty if a source is standard input, a pipe or a query, whose documents may not come again.
    """
    import xxhash

    if not _are_readable_again(inputs):
        return ()
    names, content = [source.name for source in identity.sources], identity.to_json()
    return tuple(xxhash.xxh3_64_hexdigest(json.dumps(each, sort_keys=True).encode()) for each in (names, content))


def _are_readable_again(inputs: Sequence[Input]) -> bool:
    return bool(inputs) and all(
        each.path is not None and (each.path.is_file() or each.path.is_dir()) for each in inputs
    )


def _file_name(collection: str) -> str:
    """Return a name for use in a file name."""
    return "".join(each if each.isalnum() or each in "-_" else "_" for each in collection)[:60]


def explain_change(before: Mapping[str, Any], present: Mapping[str, Any]) -> str | None:
    """Return a sentence on what has changed between two descriptions of sources, None if that is unknown."""
    from st_connectors.ingest.sources import Identity, difference

    try:
        return difference(Identity.from_json(before["inputs"]), Identity.from_json(present["inputs"]))
    except (KeyError, ValueError):
        return None


def same_command(*without: str) -> str:
    """Return the present command, for a message, without some options that have no value."""
    return join(["st-connectors", *(each for each in sys.argv[1:] if each not in without)])
