"""Keep loaded files open, so that they can be read after their folder is removed or replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import finalize

__all__ = ["HeldFiles"]

_BLOCK = 1 << 24


class HeldFiles:
    """The open files of one folder; their content is that of the files that were loaded, wherever the names lead now.

    No content is in memory. No file is kept open on Windows, where an open file cannot be removed.
    """

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        """Open files of a folder: all, or none if the system does not allow more open files."""
        self.folder = folder
        self._files: dict[str, int] = {}
        if os.name == "nt":
            return
        try:
            for path in paths:
                self._files[path.name] = os.open(path, os.O_RDONLY)
        except OSError:  # no more open files are allowed, or one is gone: the model loads all the same
            _close(self._files)
        finalize(self, _close, self._files)  # not __del__, which may run after the globals of this file are gone

    def __deepcopy__(self, _memo: object) -> HeldFiles:
        return self

    def has_moved(self) -> bool:
        """Return whether one of the names leads to no file, or to another file than it did on loading."""
        return any(not _is_same(file, self.folder / name) for name, file in self._files.items())

    @contextmanager
    def at_hand(self) -> Iterator[Path]:
        """Yield the folder, or a temporary folder with copies of the files if one of them has moved."""
        if not self.has_moved():
            yield self.folder
            return
        with TemporaryDirectory() as folder:
            for name, file in self._files.items():
                _copy(file, Path(folder, name))
            yield Path(folder)


def _close(files: dict[str, int]) -> None:
    while files:
        with suppress(OSError):
            os.close(files.popitem()[1])


def _copy(file: int, target: Path) -> None:
    """Write the content of an open file to a path; other readers of the file are not disturbed."""
    with target.open("wb") as written:
        while block := os.pread(file, _BLOCK, written.tell()):
            written.write(block)


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
