"""The class that ``run`` collects: the suite on the address passed to it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from st_connectors.testing.base import Gap, check_gaps, expect_gap
from st_connectors.testing.opening import Make
from st_connectors.testing.suite import StoreConformance

__all__ = ["TestStore"]


class TestStore(StoreConformance):
    """The store at the address passed to ``run``."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, run_make: Make) -> Make:
        """Return what opens stores in this run."""
        return run_make

    @pytest.fixture(autouse=True)
    def _run_gap(self, request: pytest.FixtureRequest, run_gaps: Mapping[str, Gap]) -> None:
        """Expect the gaps passed to ``run``; a misspelled one fails every test."""
        check_gaps(run_gaps, type(self), "gaps")
        expect_gap(request, run_gaps)
