"""Loading settings are removed after the block, and each index has its previous settings again."""

from __future__ import annotations

import pytest

from st_connectors._lucene.loading import bulk_loading
from st_connectors._lucene.plugin import LOADING

PREVIOUS = {
    "one": {"index.refresh_interval": "7s", "index.number_of_replicas": "2", "index.uuid": "x"},
    "two": {"index.number_of_replicas": "0"},
}


class MemorySettings:
    """Settings in memory; writing to one index may fail."""

    def __init__(self) -> None:
        self.now = {index: dict(settings) for index, settings in PREVIOUS.items()}
        self.refreshed = self.closed = 0
        self.broken: str | None = None

    def read(self):
        return {index: dict(settings) for index, settings in self.now.items()}

    def write(self, index, settings):
        if index == self.broken:
            raise OSError(f"{index} is gone")
        for name, value in settings.items():
            self.now[index].pop(name, None)
            if value is not None:
                self.now[index][name] = value

    def refresh(self):
        self.refreshed += 1

    def close(self):
        self.closed += 1


def test_previous_settings_are_restored():
    """Seven seconds stay seven seconds, and defaults stay defaults."""
    memory = MemorySettings()

    with bulk_loading(memory):
        assert all(settings.items() >= LOADING.items() for settings in memory.now.values())

    assert memory.now == PREVIOUS
    assert (memory.refreshed, memory.closed) == (1, 1)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_settings_are_restored_after_an_error(error):
    """The error is raised unchanged."""
    memory = MemorySettings()

    with pytest.raises(type(error)), bulk_loading(memory):
        raise error

    assert memory.now == PREVIOUS
    assert (memory.refreshed, memory.closed) == (0, 1)


def test_nested_blocks():
    """The inner block restores the settings of the outer one."""
    memory = MemorySettings()

    with bulk_loading(memory):
        with bulk_loading(memory):
            pass
        assert memory.now["one"]["index.refresh_interval"] == "-1"

    assert memory.now == PREVIOUS


def test_one_failed_restore_does_not_stop_the_others():
    """The error is raised after all are tried."""
    memory = MemorySettings()

    with pytest.raises(OSError, match="one is gone"), bulk_loading(memory):
        memory.broken = "one"

    assert memory.now["two"] == PREVIOUS["two"]


def test_a_failed_setting_restores_all():
    """The block is not run."""
    memory = MemorySettings()
    memory.broken = "two"

    with pytest.raises(OSError, match="two is gone"), bulk_loading(memory):
        pytest.fail("the block was run")

    assert memory.now["one"] == PREVIOUS["one"]
