"""Fixtures for tests that write shards."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def quick_path():
    """Yield an empty folder, in memory if possible, since every collection costs a dozen fsyncs."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
