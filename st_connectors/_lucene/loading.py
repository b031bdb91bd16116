"""Index settings for bulk loading, set for a block and restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from st_connectors._lucene.client import Connection
from st_connectors._lucene.names import index_path
from st_connectors._lucene.plugin import LOADING

__all__ = ["IndexSettings", "Settings", "bulk_loading"]

Flat = Mapping[str, Any]
_OPERATION = "bulk_loading"


class Settings(Protocol):
    """The settings of the indices of an alias or index name, in flat form: ``{"index.refresh_interval": "1s"}``."""

    def read(self) -> Mapping[str, Flat]:
        """Return the settings by index; a setting with its default value is absent."""
        ...

    def write(self, index: str, settings: Flat) -> None:
        """Change settings of one index; None resets a setting to its default."""
        ...

    def refresh(self) -> None:
        """Make earlier writes visible."""
        ...

    def close(self) -> None:
        """Close the client that was opened to read and write the settings."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class IndexSettings:
    """The settings of the indices of an alias or index name on a server."""

    connection: Connection
    name: str

    def read(self) -> Mapping[str, Flat]:
        """Return the settings by index; a setting with its default value is absent."""
        path = f"{index_path(self.name)}/_settings"
        answer = self.connection.send(_OPERATION, "GET", path, params={"flat_settings": "true"})
        return {index: each["settings"] for index, each in answer.items()}

    def write(self, index: str, settings: Flat) -> None:
        """Change settings of one index; None resets a setting to its default."""
        path = f"{index_path(index)}/_settings"
        self.connection.send(_OPERATION, "PUT", path, dict(settings), expect="acknowledged")

    def refresh(self) -> None:
        """Make earlier writes visible."""
        self.connection.send(_OPERATION, "POST", f"{index_path(self.name)}/_refresh")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


@contextmanager
def bulk_loading(settings: Settings) -> Iterator[None]:
    """Apply the settings for bulk loading for the duration of a ``with`` block.

    Afterwards the previous settings of each index are restored, also after an error. If the block raises no error, its
    writes are then made visible.
    """
    with closing(settings):
        with _applied(settings):
            yield
        settings.refresh()


@contextmanager
def _applied(settings: Settings) -> Iterator[None]:
    previous = {index: {name: flat.get(name) for name in LOADING} for index, flat in settings.read().items()}
    try:
        for index in previous:
            settings.write(index, LOADING)
        yield
    finally:
        _restore(settings, previous)


def _restore(settings: Settings, previous: Mapping[str, Flat]) -> None:
    """Restore the settings of every index, then raise the first error, if any."""
    errors: list[Exception] = []
    for index, flat in previous.items():
        try:
            settings.write(index, flat)
        except Exception as error:  # noqa: BLE001  # raised after the other indices are restored
            errors.append(error)
    if errors:
        raise errors[0]
