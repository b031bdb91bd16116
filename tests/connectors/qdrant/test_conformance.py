"""The conformance suite on the two ways into Qdrant that need no server."""

from pathlib import Path

import pytest

pytest.importorskip("qdrant_edge", reason="needs the qdrant extra")

from st_connectors.testing import StoreConformance


class TestEdge(StoreConformance):
    """The embedded default."""

    client_modules = ("qdrant_client", "qdrant_edge")

    @classmethod
    def address(cls, folder: Path) -> str:
        return f"qdrant+edge:{folder}"


class TestLocal(StoreConformance):
    """qdrant-client's local mode."""

    client_modules = ("qdrant_client", "qdrant_edge")

    @classmethod
    def address(cls, folder: Path) -> str:
        return f"qdrant+memory:{folder}"
