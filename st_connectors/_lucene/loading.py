"""Settings of an index that make loading it faster, put in and taken out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Protocol

__all__ = ["LOADING", "Settings", "loading"]

LOADING: Mapping[str, str] = {"index.refresh_interval": "-1", "index.number_of_replicas": "0"}
"""No segment a second, and no copy of each write; the server makes the copies at once when it is over."""

Flat = Mapping[str, Any]


class Settings(Protocol):
    """The settings of the indices behind a name, flat: ``{"index.refresh_interval": "1s"}``."""

    def read(self) -> Mapping[str, Flat]:
        """By index, what is set; what is not set is left out."""
        ...

    def write(self, index: str, settings: Flat) -> None:
        """Set; None takes a setting out."""
        ...

    def refresh(self) -> None:
        """Make what was written visible."""
        ...

    def close(self) -> None:
        """Give back the client that was opened for this."""
        ...


@contextmanager
def loading(settings: Settings) -> Iterator[None]:
    """Loading settings for the block; afterwards, whatever happened in it, each index has again what it had, and what was written is visible."""
    with closing(settings):
        with _loaded(settings):
            yield
        settings.refresh()


@contextmanager
def _loaded(settings: Settings) -> Iterator[None]:
    found = {index: {name: held.get(name) for name in LOADING} for index, held in settings.read().items()}
    try:
        for index in found:
            settings.write(index, LOADING)
        yield
    finally:
        _restore(settings, found)


def _restore(settings: Settings, found: Mapping[str, Flat]) -> None:
    """Put back what was found in every index, then raise the first error of those that could not be."""
    failed: list[Exception] = []
    for index, held in found.items():
        try:
            settings.write(index, held)
        except Exception as error:  # noqa: BLE001  # the other indices are restored first, then it is raised
            failed.append(error)
    if failed:
        raise failed[0]
