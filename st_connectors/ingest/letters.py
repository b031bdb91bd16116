"""A dead-letter file for each task of an engine for distributed processing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from st_connectors.disk import sync_folder
from st_connectors.ingest.dead_letters import Target, letter_of
from st_connectors.ingest.report import Refusal

__all__ = ["letters_file"]


@contextmanager
def letters_file(folder: Path, name: str, target: Target) -> Iterator[Callable[[Refusal], None]]:
    """Yield a function that writes a refusal to ``NAME.jsonl`` in a folder, which is created.

    The file appears when the block ends, also by an error, and is then on disk; without refusals there is no file. A
    second block with the same name replaces it, so that a task that runs again does not leave refusals twice.
    """
    path = folder / f"{name}.jsonl"
    part = path.with_suffix(".part")
    folder.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as file:
        try:
            yield lambda refusal: _write(file, refusal, target, name)
        finally:
            file.flush()
            os.fsync(file.fileno())
            if file.tell():
                part.replace(path)
                sync_folder(folder)
            else:
                part.unlink()


def _write(file: TextIO, refusal: Refusal, target: Target, name: str) -> None:
    file.write(f"{json.dumps(letter_of(refusal, target, name))}\n")
