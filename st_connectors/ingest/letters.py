"""Files of refused documents, one JSON object per line, that tasks write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from st_connectors.ingest.refused import refusal_to_json
from st_connectors.ingest.report import Refusal

__all__ = ["letters_file"]


@contextmanager
def letters_file(folder: str | os.PathLike[str], name: str) -> Iterator[Callable[[Refusal], None]]:
    """Yield a function that writes a refusal to ``NAME.jsonl`` in a folder, which is created.

    The file appears when the block ends, also by an error, and is then on disk; without refusals there is no file. A
    second block with the same name replaces it, so that a task that runs again does not leave refusals twice.
    """
    target = Path(folder) / f"{name}.jsonl"
    part = target.with_suffix(".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        try:
            yield lambda refusal: _write(file, refusal)
        finally:
            file.flush()
            os.fsync(file.fileno())
            if file.tell():
                part.replace(target)
            else:
                part.unlink()


def _write(file: TextIO, refusal: Refusal) -> None:
    file.write(f"{json.dumps(refusal_to_json(refusal), ensure_ascii=False)}\n")
