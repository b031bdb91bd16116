"""The conformance suite on Qdrant: edge and local mode always, a server where ST_QDRANT_URL names one (``qdrant://host:6333``) or ST_REQUIRE asks for it.

``ST_REQUIRE`` knows the three as ``qdrant-edge``, ``qdrant-memory`` and ``qdrant``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from integration.stores import address_of
from st_connectors.testing import StoreConformance, opener

pytest.importorskip("qdrant_edge", reason="needs the qdrant extra")

CLIENTS = ("qdrant_client", "qdrant_edge")


@pytest.mark.engine("qdrant-edge")
class TestEdge(StoreConformance):
    """The embedded default, on a real disk."""

    client_modules = CLIENTS

    @classmethod
    def address(cls, folder: Path) -> str:
        """Say where."""
        return f"qdrant+edge:{folder}"

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls):
        """Open stores under a folder of the system's temporary place."""
        with tempfile.TemporaryDirectory() as folder:
            yield opener(cls.address(Path(folder)))


@pytest.mark.engine("qdrant-memory")
class TestLocal(StoreConformance):
    """qdrant-client's local mode."""

    client_modules = CLIENTS

    @classmethod
    def address(cls, folder: Path) -> str:
        """Say where."""
        return f"qdrant+memory:{folder}"


@pytest.mark.engine("qdrant")
class TestServer(StoreConformance):
    """A server, over REST or gRPC as the address says; its collections of other names are left alone."""

    client_modules = CLIENTS

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, engines):
        """Open stores on the server."""
        return opener(address_of("qdrant", engines.url("qdrant")))
