"""Open the session of a graph on first use, and again in a forked process.

The runtimes start threads when they open a session. A forked process has none of these threads, so that a session of
its parent would compute with a part of the processor, or wait for an answer that never comes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from st_core.backends.graph.runtimes import Feed, Session

__all__ = ["OnFirstUse"]

_sessions: WeakSet[OnFirstUse] = WeakSet()
_of_parents: list[Session | None] = []
"""Sessions of parent processes; closing one would wait for threads that this process does not have."""


class OnFirstUse:
    """A graph whose session is opened by the first call in each process; safe in threads."""

    def __init__(self, open_session: Callable[[], Session], session: Session | None = None) -> None:
        """Store the function that opens the session, and a session that this process has opened already."""
        self._open = open_session
        self._lock = threading.Lock()
        self._session = session
        _sessions.add(self)

    def __call__(self, feed: Feed) -> list[NDArray[np.float32]]:
        """Return the outputs in the graph's order; raise the errors of opening the graph."""
        session = self._session
        if session is None:
            with self._lock:
                session = self._session = self._session or self._open()
        return session(feed)

    def leave_to_parent(self) -> None:
        """Forget the session of the parent process, and a lock that one of its threads may have held."""
        _of_parents.append(self._session)
        self._lock, self._session = threading.Lock(), None


def _leave_all() -> None:
    for each in list(_sessions):
        each.leave_to_parent()


if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_leave_all)
