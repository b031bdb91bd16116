"""The conformance suite on Qdrant: always on edge and local mode, on a server where configured.

The server is that of ``ST_QDRANT_URL`` (``qdrant://host:6333``) or required by ``ST_REQUIRE``, where the three are
called ``qdrant-edge``, ``qdrant-memory`` and ``qdrant``.
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
        """Return the address."""
        return f"qdrant+edge:{folder}"

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls):
        """Open stores in a temporary folder."""
        with tempfile.TemporaryDirectory() as folder:
            yield opener(cls.address(Path(folder)))


@pytest.mark.engine("qdrant-memory")
class TestLocal(StoreConformance):
    """qdrant-client's local mode."""

    client_modules = CLIENTS

    @classmethod
    def address(cls, folder: Path) -> str:
        """Return the address."""
        return f"qdrant+memory:{folder}"


@pytest.mark.engine("qdrant")
class TestServer(StoreConformance):
    """A server, over REST or gRPC depending on the address; its other collections are not touched."""

    client_modules = CLIENTS

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, engines):
        """Open stores on the server."""
        return opener(address_of("qdrant", engines.url("qdrant")))
