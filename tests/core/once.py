"""Folders that are made once in a run, by whichever of its processes asks first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def root_of_run(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all processes of a run share.

    Pytest-xdist gives each of them a temporary folder of its own, side by side.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return factory.mktemp(name)
    root = factory.getbasetemp().parent / name
    root.mkdir(exist_ok=True)
    return root


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder, made if it is not there; another process that asks meanwhile waits."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)  # half of a folder is none
                raise
    return folder
