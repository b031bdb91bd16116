"""The conformance suite on Qdrant: edge and local mode always, a server where ST_QDRANT_URL names one (``qdrant://host:6333``).

ST_REQUIRE lists what may not be skipped: ``qdrant`` for the two in this process, ``qdrant-server`` for the server.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from st_connectors.testing import StoreConformance, opener

REQUIRED = {name.strip() for name in os.environ.get("ST_REQUIRE", "").split(",")}
CLIENTS = ("qdrant_client", "qdrant_edge")

if "qdrant" not in REQUIRED:
    pytest.importorskip("qdrant_edge", reason="needs the qdrant extra; ST_REQUIRE=qdrant makes this a failure")


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


class TestLocal(StoreConformance):
    """qdrant-client's local mode."""

    client_modules = CLIENTS

    @classmethod
    def address(cls, folder: Path) -> str:
        """Say where."""
        return f"qdrant+memory:{folder}"


class TestServer(StoreConformance):
    """A server, over REST or gRPC as the address says; its collections of other names are left alone."""

    client_modules = CLIENTS

    @classmethod
    def address(cls, folder: Path) -> str:
        """Say where."""
        del folder
        url = os.environ.get("ST_QDRANT_URL", "")
        if not url and "qdrant-server" in REQUIRED:
            pytest.fail("ST_REQUIRE names qdrant-server, and ST_QDRANT_URL does not say where one is")
        if not url:
            pytest.skip("no server: ST_QDRANT_URL=qdrant://host:6333 names one")
        return url
