"""The class that ``run`` collects: the suite on whatever address it was told."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from st_connectors.testing.base import Gap, check_gaps, expect_gap
from st_connectors.testing.opening import Make
from st_connectors.testing.suite import StoreConformance

__all__ = ["TestStore"]


class TestStore(StoreConformance):
    """The store at the address given to ``run``."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, told_make: Make) -> Make:
        """How ``run`` was told to open stores."""
        return told_make

    @pytest.fixture(autouse=True)
    def _told_gap(self, request: pytest.FixtureRequest, told_gaps: Mapping[str, Gap]) -> None:
        """The gaps that ``run`` was told of; a misspelt one fails every test."""
        check_gaps(told_gaps, type(self), "gaps")
        expect_gap(request, told_gaps)
