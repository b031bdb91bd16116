"""Find the Java installations of this machine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Jdk", "choose", "installed"]

_SYSTEM_FOLDERS = (Path("/usr/lib/jvm"), Path("/opt"))


@dataclass(frozen=True, slots=True)
class Jdk:
    """A Java installation with a compiler: its folder and its major version."""

    home: Path
    major: int

    @property
    def java(self) -> Path:
        """The program that runs classes."""
        return self.home / "bin" / "java"

    @property
    def javac(self) -> Path:
        """The compiler."""
        return self.home / "bin" / "javac"


def installed(environ: Mapping[str, str] = os.environ) -> list[Jdk]:
    """Return the installations of ``JAVA_HOME``, ``PATH`` and the system's folders, each once, in that order."""
    found: dict[Path, Jdk] = {}
    for home in _candidates(environ):
        real = home.resolve()
        if real not in found and (major := _major(real)) is not None:
            found[real] = Jdk(real, major)
    return list(found.values())


def choose(lowest: int, highest: int, jdks: list[Jdk]) -> Jdk | None:
    """Return the oldest installation between two major versions, inclusive: engines are best tested with it."""
    fitting = [jdk for jdk in jdks if lowest <= jdk.major <= highest]
    return min(fitting, key=lambda jdk: jdk.major, default=None)


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if home := environ.get("JAVA_HOME"):
        yield Path(home)
    if java := shutil.which("javac", path=environ.get("PATH")):
        yield Path(java).resolve().parent.parent
    for folder in _SYSTEM_FOLDERS:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _major(home: Path) -> int | None:
    """Return the major version in the ``release`` file of the installation, or None if it is no JDK."""
    release = home / "release"
    if not (home / "bin" / "javac").is_file() or not release.is_file():
        return None
    match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release.read_text(encoding="utf-8"), re.MULTILINE)
    return int(match[1]) if match else None
