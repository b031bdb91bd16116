"""The log of a server process, on standard error: lines of JSON for requests, lines of text for everything else."""

from __future__ import annotations

import logging
import sys

__all__ = ["log_to_stderr"]


def log_to_stderr() -> None:
    """Write the log of this process to standard error; for programs, not for libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("st-connectors: %(levelname)s: %(message)s"))
    requests = logging.StreamHandler(sys.stderr)
    requests.setFormatter(logging.Formatter("%(message)s"))
    for name, level, each in (
        ("st_connectors.server", logging.INFO, handler),
        ("st_connectors.gateway", logging.INFO, handler),
        ("uvicorn.error", logging.WARNING, handler),
        ("st_connectors.server.access", logging.INFO, requests),
    ):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [each], False
        log.setLevel(level)
