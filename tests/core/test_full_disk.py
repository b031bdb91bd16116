"""A full disk is named as the reason, whatever the library that writes a graph says."""

from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace

import pytest

from st_core.backends.graph import folders
from st_core.backends.graph.folders import write_graph


@pytest.fixture
def free(monkeypatch):
    """Return a function that sets the free space of every disk."""

    def set_free(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))

    return set_free


def failing(error):
    """Return a function that writes half a graph, then fails."""

    def write(folder):
        (folder / "model.bin").write_bytes(bytes(2_500_000))
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (RuntimeError("Check 'bin_file' failed at src/core/src/pass/serialize.cpp"), 4096),
        (OSError(errno.ENOSPC, "No space left on device"), 0),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 10**8),
    ],
    ids=["another error", "no space", "quota"],
)
def test_a_full_cache_is_named_with_its_space_and_its_variable(free, monkeypatch, tmp_path, error, size):
    """The advice to use another backend would be of no use."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path))
    free(size)

    with pytest.raises(OSError) as caught:
        write_graph(tmp_path / "graphs" / "onnx-float32-x", failing(error))

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.strerror == (
        f"the graph cannot be stored in {tmp_path}/graphs: its disk has {size / 1e6:.1f} MB left after 2.5 MB were "
        "written; free some space, or set ST_CONNECTORS_CACHE to a folder on another disk"
    )
    assert caught.value.__cause__ is error
    assert list((tmp_path / "graphs").iterdir()) == []


def test_a_full_disk_under_an_export_is_named(free, monkeypatch, tmp_path):
    """The cache is not the place then."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    free(0)

    with pytest.raises(OSError, match=rf"in {tmp_path}/out: .*; free some space, or choose a folder on another disk"):
        write_graph(tmp_path / "out" / "onnx-float32-x", failing(ValueError("x")))


def test_other_errors_stay(free, tmp_path):
    """There is space, so that the disk is not the reason."""
    free(folders.FULL)

    with pytest.raises(RuntimeError, match=r"^the operation is unknown$"):
        write_graph(tmp_path / "onnx-float32-x", failing(RuntimeError("the operation is unknown")))
