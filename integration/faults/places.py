"""The engines of the scenarios: their addresses, and a node that can be killed and started again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from integration.faults.material import NAME
from integration.nodes import Missing, find
from integration.nodes.recipes import RECIPES
from integration.nodes.run import Running, run
from integration.stores import address_of, opened
from st_connectors import open_store
from st_connectors.errors import NotFound

__all__ = ["MODELS", "Setting", "SkippedError", "drop", "placed"]


MODELS: Mapping[str, Any] = {"dense": "builtin:dense", "sparse": "builtin:sparse", "filterable": {"year": "int"}}
"""What the collections are created with."""

PATIENCE_S = 900.0
"""How long a node may take to start on a machine that does other work too."""


class SkippedError(Exception):
    """A scenario cannot be run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a scenario takes place: a store, an empty folder, and how much is done.

    ``node`` is the server if it can be killed. ``kills`` is the number of processes to kill. ``say`` prints progress.
    """

    engine: str
    address: str
    folder: Path
    seed: int
    documents: int
    kills: int
    node: Running | None = None
    say: Callable[[str], None] = lambda _: None

    @property
    def is_server(self) -> bool:
        """Whether there is a network between the client and the store."""
        return "://" in self.address

    @property
    def upstream(self) -> tuple[str, int]:
        """The host and the port of the server."""
        parts = urlsplit(self.address)
        return parts.hostname or "", parts.port or 9200

    def through(self, host: str, port: int, options: str = "") -> str:
        """Return the address of the server by way of a proxy."""
        return f"{urlsplit(self.address).scheme}://{host}:{port}{options}"


@contextmanager
def placed(engine: str, folder: Path) -> Iterator[tuple[str, Running | None]]:
    """Yield the address of an engine, and its node if it is assembled here; raise :class:`Absent` if there is none."""
    found = find(engine) if engine in RECIPES else None
    if found is None or isinstance(found, Missing) or found.how != "node":
        with opened(engine, folder) as address:
            yield address, None
        return
    with run(RECIPES[engine], patience_s=PATIENCE_S) as node:
        yield address_of(engine, node.url), node


def drop(setting: Setting) -> None:
    """Remove the collection, and what ingests have left beside their sources."""
    with suppress(NotFound), closing(open_store(setting.address, NAME)) as store:
        store.drop()
    shutil.rmtree(setting.folder / ".st-connectors", ignore_errors=True)
