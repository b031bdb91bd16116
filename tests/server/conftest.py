"""A server of the built-in models, and the models that it serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Running, running

from st_core import SentenceTransformer, SparseEncoder


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """Serve the built-in models."""
    pytest.importorskip("fastapi", reason="needs the extra server")
    from st_connectors.server import Settings

    with running(Settings(access_log=False)) as started:
        yield started


@pytest.fixture(scope="session")
def dense() -> SentenceTransformer:
    return SentenceTransformer("builtin:dense")


@pytest.fixture(scope="session")
def sparse() -> SparseEncoder:
    return SparseEncoder("builtin:sparse")
