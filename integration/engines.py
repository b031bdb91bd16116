"""The servers of one session: started on first request, at most two at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from integration.nodes import Missing, find, required

__all__ = ["Engines", "running"]

MOST = 2
"""Servers at a time; each takes about 1.5 GB."""


@dataclass
class Engines:
    """Servers by the name of their engine."""

    _running: dict[str, tuple[str, contextlib.ExitStack]] = field(default_factory=dict)

    def url(self, engine: str, *, also: str | None = None) -> str:
        """Return the HTTP address of an engine, by its name or by ``also``; skip with the reason if there is none.

        The least recently requested server is stopped before a third one starts, so use a server before requesting
        others.
        """
        if engine in self._running:
            self._running[engine] = self._running.pop(engine)
            return self._running[engine][0]
        variable = f"ST_{engine.partition('-')[0].upper()}_URL"
        names = [engine] if also is None else [engine, also]
        if not any(map(required, names)) and not os.environ.get(variable):
            pytest.skip(f"not requested: ST_REQUIRE={names[-1]} starts one, {variable}=http://host:9200 names one")
        found = find(engine)
        if isinstance(found, Missing):
            pytest.skip(f"{engine}: {found.reason}")
        while len(self._running) >= MOST:
            self._end(next(iter(self._running)))
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(found.open())
            self._running[engine] = url, stack.pop_all()
        return url

    def close(self) -> None:
        """Stop all servers that were started here."""
        for engine in list(self._running):
            self._end(engine)

    def _end(self, engine: str) -> None:
        _, stack = self._running.pop(engine)
        stack.close()


@contextlib.contextmanager
def running() -> Iterator[Engines]:
    """Yield the engines of a session."""
    engines = Engines()
    try:
        yield engines
    finally:
        engines.close()
