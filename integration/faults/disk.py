"""Fill the disk under the state or the dead letters of an ingest, or make their folder read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from integration.faults.checking import check, compare, said
from integration.faults.command import DONE, FAILURE, Child, Command, ingest_command, letters_in, state_in
from integration.faults.material import Document, expected, make_documents, refused_by_id, write_jsonl
from integration.faults.outcome import Outcome
from integration.faults.places import Setting, SkippedError, drop
from st_connectors.store import Record

__all__ = ["break_disk"]

SIZE = 256 * 1024
"""The bytes of the small disk."""
PAUSE_S = 1.2
"""Longer than the time between two writes of the state."""


def break_disk(setting: Setting) -> Outcome:
    """Fill the disk of the state and that of the dead letters, and free it again; make the folder read-only."""
    source = make_documents(setting.documents, setting.seed)
    wanted = expected(source)
    path = setting.folder / "source.jsonl"
    write_jsonl(path, source)
    outcome = Outcome()
    for scenario in (_fill_under_state, _fill_under_letters, _forbid_state, _forbid_letters, _forbid_default):
        drop(setting)
        try:
            with small_disk(setting.folder / "small") as disk:
                outcome += scenario(setting, disk, source, wanted) + Outcome(len(source))
        finally:
            drop(setting)
    return outcome


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Yield a folder that is a small file system in memory; skip the scenario where it cannot be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode:
        raise SkippedError("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Write a file until the disk of a folder is full, and return it."""
    path = folder / "filler"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1024)
    return path


def _command(setting: Setting, option: str, path: Path) -> Command:
    return ingest_command(setting.folder / "source.jsonl", setting.address, setting.folder, (option, str(path)))


def _fill_under_state(setting: Setting, disk: Path, source: Sequence[Document], wanted: dict[str, Record]) -> Outcome:
    state = disk / "state.json"
    command = _command(setting, "--state", state)
    with command.start() as child:
        child.wait_until(state.exists)
        child.pause()
        filler = fill(disk)
        child.wait(PAUSE_S)  # so that the state is due
        child.resume()
        child.wait()
    outcome = said(child, FAILURE, "the state cannot be written", "No space left", "run the same ingest again")
    filler.unlink()
    return outcome + _again(setting, command, source, wanted)


def _fill_under_letters(setting: Setting, disk: Path, source: Sequence[Document], wanted: dict[str, Record]) -> Outcome:
    letters = disk / "refused.jsonl"
    command = ingest_command(
        setting.folder / "source.jsonl", setting.address, setting.folder, ("--refused", str(letters))
    )
    filler = fill(disk)
    child = command.run()
    outcome = said(child, FAILURE, "refused documents cannot be written", "No space left", "run the same ingest again")
    filler.unlink()
    return outcome + _again(setting, command, source, wanted, letters)


def _again(
    setting: Setting,
    command: Command,
    source: Sequence[Document],
    wanted: dict[str, Record],
    letters: Path | None = None,
) -> Outcome:
    """Run an ingest again after its disk has space, and compare the collection."""
    child = command.run()
    outcome = Outcome(runs=2, faults=1, retries=child.retries)
    if child.status not in DONE:
        outcome += Outcome(problem=f"the second run ended with {child.status}: {child.messages[-3:]}")
    return outcome + check(setting, wanted, refused_by_id(source), letters or letters_in(setting.folder))


def _forbid_state(setting: Setting, disk: Path, source: Sequence[Document], wanted: dict[str, Record]) -> Outcome:
    state = disk / "state.json"
    _make_read_only(disk)
    command = _command(setting, "--state", state)
    child = command.run()
    outcome = said(child, FAILURE, "the state cannot be written", "Read-only", "choose another place")
    _make_writable(disk)
    return outcome + _again(setting, command, source, wanted)


def _forbid_letters(setting: Setting, disk: Path, source: Sequence[Document], wanted: dict[str, Record]) -> Outcome:
    letters = disk / "refused.jsonl"
    _make_read_only(disk)
    command = ingest_command(
        setting.folder / "source.jsonl", setting.address, setting.folder, ("--refused", str(letters))
    )
    child = command.run()
    outcome = said(child, FAILURE, "refused documents cannot be written", "Read-only", "choose another file")
    _make_writable(disk)
    return outcome + _again(setting, command, source, wanted, letters)


def _forbid_default(setting: Setting, disk: Path, source: Sequence[Document], wanted: dict[str, Record]) -> Outcome:
    """Without a writable folder beside the source, an ingest goes on without a state, and says so."""
    path = disk / "source.jsonl"
    _resize(disk)
    write_jsonl(path, source)
    _make_read_only(disk)
    child: Child = ingest_command(path, setting.address, setting.folder).run()
    outcome = said(child, 1, "no state is written beside the source", "--state FILE")
    if state_in(disk) is not None:
        outcome += Outcome(problem="there is a state in a read-only folder")
    return outcome + Outcome(runs=1, faults=1, retries=child.retries) + compare(setting, wanted)


def _remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _make_read_only(disk: Path) -> None:
    _remount(disk, "ro")


def _make_writable(disk: Path) -> None:
    _remount(disk, "rw")


def _resize(disk: Path) -> None:
    """Make space for a source."""
    _remount(disk, "size=64m")
