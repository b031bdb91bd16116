"""Files of refused documents, one JSON object per line, that tasks write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from st_connectors.ingest.dead_letters import Letter, Target, letter_of
from st_connectors.ingest.report import Refusal

__all__ = ["letters_file"]


@contextmanager
def letters_file(
    folder: str | os.PathLike[str], name: str, target: Target, run: str
) -> Iterator[Callable[[Refusal], None]]:
    """Yield a function that writes a refusal of a run to ``NAME.jsonl`` in a folder, which is created.

    The file appears when the block ends, also by an error, and is then on disk; without refusals there is no file. A
    second block with the same name replaces it, so that a task that runs again does not leave refusals twice.
    """
    file_path = Path(folder) / f"{name}.jsonl"
    part = file_path.with_suffix(".part")
    file_path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as file:
        try:
            yield lambda refusal: _write(file, letter_of(refusal, target, run))
        finally:
            file.flush()
            os.fsync(file.fileno())
            if file.tell():
                part.replace(file_path)
            else:
                part.unlink()


def _write(file: TextIO, letter: Letter) -> None:
    file.write(f"{json.dumps(letter)}\n")
