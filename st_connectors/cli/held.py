"""Warnings that are logged while a command runs, held until it is known how it ends: an error is told in one line, alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Held", "holding_warnings"]


class Held(logging.Handler):
    """A log handler that keeps what each warning says, once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self.texts[" ".join(record.getMessage().split())] = None


@contextmanager
def holding_warnings() -> Iterator[Held]:
    """Hold the warnings of all loggers while the block runs."""
    held = Held()
    logging.getLogger().addHandler(held)
    try:
        yield held
    finally:
        logging.getLogger().removeHandler(held)
