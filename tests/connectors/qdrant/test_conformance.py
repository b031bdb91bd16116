"""The conformance suite on the embedded engine and on local mode, which need no server."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

pytest.importorskip("qdrant_edge", reason="needs the qdrant extra")

from st_connectors.testing import HttpErrors, StoreConformance, opener


class TestEdge(StoreConformance):
    """The embedded default, in memory if possible, since every collection costs a dozen fsyncs."""

    client_modules = ("qdrant_client", "qdrant_edge")
    promises = frozenset({"optional_vectors", "persistent", "fusion"})

    @classmethod
    def address(cls, folder: Path) -> str:
        return f"qdrant+edge:{folder}"

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls):
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            yield opener(cls.address(Path(folder)))


@pytest.mark.long
class TestLocal(StoreConformance):
    """qdrant-client's local mode."""

    client_modules = ("qdrant_client", "qdrant_edge")
    promises = frozenset({"optional_vectors", "fusion"})

    @classmethod
    def address(cls, folder: Path) -> str:
        return f"qdrant+memory:{folder}"


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
class TestRestFailing(HttpErrors):
    """Failures of a server over REST."""

    key_variable = "ST_QDRANT_API_KEY"

    @classmethod
    def through(cls, host: str, port: int) -> str:
        return f"qdrant://{host}:{port}"
