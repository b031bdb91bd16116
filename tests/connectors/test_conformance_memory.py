"""The oracle passes the suite too."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from st_connectors.testing import StoreConformance


class TestMemory(StoreConformance):
    """The brute-force store in this process."""

    promises: ClassVar = frozenset({"optional_vectors"})

    @classmethod
    def address(cls, folder: Path) -> str:
        return f"memory:{folder}"
