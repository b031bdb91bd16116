"""Loading settings are taken out again, and what was found is put back, not what is usual."""

from __future__ import annotations

import pytest

from st_connectors._lucene.loading import LOADING, bulk_loading

FOUND = {
    "one": {"index.refresh_interval": "7s", "index.number_of_replicas": "2", "index.uuid": "x"},
    "two": {"index.number_of_replicas": "0"},
}


class Held:
    """Settings in memory; writing to one index may fail."""

    def __init__(self) -> None:
        self.now = {index: dict(settings) for index, settings in FOUND.items()}
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


def test_what_was_found_is_put_back():
    """Seven seconds stay seven seconds, and what was not set is not set."""
    held = Held()

    with bulk_loading(held):
        assert all(settings.items() >= LOADING.items() for settings in held.now.values())

    assert held.now == FOUND
    assert (held.refreshed, held.closed) == (1, 1)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_also_after_an_error(error):
    """The error comes through."""
    held = Held()

    with pytest.raises(type(error)), bulk_loading(held):
        raise error

    assert held.now == FOUND
    assert (held.refreshed, held.closed) == (0, 1)


def test_blocks_inside_one_another():
    """The inner one leaves the outer one's settings."""
    held = Held()

    with bulk_loading(held):
        with bulk_loading(held):
            pass
        assert held.now["one"]["index.refresh_interval"] == "-1"

    assert held.now == FOUND


def test_an_index_that_cannot_be_restored_does_not_keep_the_others_from_it():
    """The error is raised when the rest is done."""
    held = Held()

    with pytest.raises(OSError, match="one is gone"), bulk_loading(held):
        held.broken = "one"

    assert held.now["two"] == FOUND["two"]


def test_an_index_that_cannot_be_set_leaves_all_as_they_were():
    """Nothing of the block is run."""
    held = Held()
    held.broken = "two"

    with pytest.raises(OSError, match="two is gone"), bulk_loading(held):
        pytest.fail("the block was run")

    assert held.now["one"] == FOUND["one"]
