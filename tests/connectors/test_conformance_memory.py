"""The oracle passes the suite too."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from st_connectors.testing import Gap, StoreConformance


class TestMemory(StoreConformance):
    """The brute-force store in this process."""

    gaps: ClassVar = {"test_persistence_is_declared": Gap("it lives in the process, by design", AssertionError)}

    @classmethod
    def address(cls, folder: Path) -> str:
        return f"memory:{folder}"
