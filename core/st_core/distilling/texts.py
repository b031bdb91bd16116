"""Texts of files, and their division into those for training and those held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from st_core.rows import LABELS, rows_of_files

__all__ = ["split_held_out", "texts_of_files"]


def texts_of_files(paths: Sequence[str | PathLike[str]], columns: Sequence[str] | None = None) -> list[str]:
    """Return the distinct texts of files, in order: the lines of ``.txt`` files, and the texts of rows in others.

    ``columns`` are the columns to read, by default all that contain texts or lists of texts. Blank texts are left out.
    Raises OSError for a file that cannot be read, and ValueError for an unknown format, a column that does not exist,
    and files without texts.
    """
    found = dict.fromkeys(text for path in paths for text in _texts(Path(fspath(path)), columns) if text.strip())
    if not found:
        raise ValueError(f"{', '.join(str(path) for path in paths) or 'no files'}: no texts")
    return list(found)


def _texts(path: Path, columns: Sequence[str] | None) -> Iterator[str]:
    if path.suffix.lower() == ".txt":
        try:
            yield from path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
        return
    for row in rows_of_files([path]):
        names = [name for name in row if name not in LABELS] if columns is None else columns
        for name in names:
            if name not in row:
                raise ValueError(f"{path} has no column {name!r}; its columns are {', '.join(row)}")
            value = row[name]
            values = value if isinstance(value, (list, tuple)) else [value]
            yield from (each for each in values if isinstance(each, str))


def split_held_out(texts: Sequence[str], share: float, seed: int = 42) -> tuple[list[str], list[str]]:
    """Return the texts for training and a held-out share of them, drawn by the seed: at least one unless it is 0.

    Raises ValueError for a share that is not from 0 to below 1, and for fewer than two texts.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share that is held out must be from 0 to below 1, got {share}")
    if share == 0:
        return list(texts), []
    count = max(1, round(len(texts) * share))
    if count >= len(texts):
        raise ValueError(f"{len(texts)} are too few to hold out a share of {share}; pass more, or a share of 0")
    chosen = set(np.random.default_rng(seed).permutation(len(texts))[:count].tolist())
    return (
        [text for place, text in enumerate(texts) if place not in chosen],
        [text for place, text in enumerate(texts) if place in chosen],
    )
