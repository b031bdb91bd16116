"""The free space and the permissions of the folders of embedded stores, and files that are written durably.

Engines that map files into memory are killed by a signal if the disk becomes full, so that the space is checked before
each write.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from st_connectors.errors import Permanent

__all__ = [
    "OWN_FOLDER",
    "RESERVE",
    "check_space",
    "explain_unwritable",
    "free_space",
    "has_space",
    "sync_folder",
    "write_atomically",
]

OWN_FOLDER = ".st-connectors"
"""The name of the folder beside a source that contains the states and the dead letters of its ingests."""
RESERVE = 8_000_000
"""The free space in bytes that a write must leave, for files that an engine extends by more than the records."""


def free_space(folder: Path) -> int:
    """Return the free space in bytes on the disk of a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def has_space(folder: Path, size: int) -> bool:
    """Return whether ``size`` bytes can be written to the disk of a folder and leave the reserve."""
    return free_space(folder) >= size + RESERVE


def check_space(folder: Path, size: int, *, store: str, operation: str) -> None:
    """Raise ``Permanent`` unless ``size`` bytes can be written to the disk of a folder and leave the reserve."""
    if not has_space(folder, size):
        message = (
            f"the disk of {folder} is full: {free_space(folder) / 1e6:.1f} MB are free, and writing needs "
            f"{(size + RESERVE) / 1e6:.1f} MB; free some space and repeat it (stored records stay, and can be searched)"
        )
        raise Permanent(message, store=store, operation=operation)


def explain_unwritable(folder: Path, *, store: str, operation: str) -> Permanent | None:
    """Return the error for a folder that could not be opened because it is not writable, None for a writable one."""
    if os.access(folder, os.W_OK):
        return None
    message = (
        f"the folder {folder} is not writable, and the engine cannot open it for reading only: "
        "copy it to a writable folder, or make it writable"
    )
    return Permanent(message, store=store, operation=operation)


def write_atomically(path: Path, parts: Iterable[str]) -> None:
    """Write texts to a file so that it is either complete or as it was before, even after a power failure.

    The texts are first written to a file ``.NAME.part`` beside it, so that only one process at a time may write a file.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of the files of a folder durable, where the system can; without it a rename may be lost."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
