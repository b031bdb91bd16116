"""The conformance suite on Milvus Lite."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

pytest.importorskip("milvus_lite", reason="needs the milvus extra")

from st_connectors.testing import StoreConformance, opener


@pytest.mark.long
class TestLite(StoreConformance):
    """Milvus Lite, in memory if possible."""

    client_modules = ("pymilvus", "milvus_lite")
    promises = frozenset({"optional_vectors", "persistent"})

    @classmethod
    def address(cls, folder: Path) -> str:
        return f"milvus+lite:{folder}"

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls):
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            yield opener(cls.address(Path(folder)))
