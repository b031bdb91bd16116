"""The class that ``run`` collects: the suite on whatever address it was told."""

from __future__ import annotations

import pytest

from st_connectors.testing.base import Make
from st_connectors.testing.suite import StoreConformance

__all__ = ["TestStore"]


class TestStore(StoreConformance):
    """The store at the address given to ``run``."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, told_make: Make) -> Make:
        """How ``run`` was told to open stores."""
        return told_make
