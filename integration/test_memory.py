"""The suite on the memory store, started as users do: by address, through the installed entry point."""

from __future__ import annotations

from st_connectors.testing import run
from st_connectors.testing.report import Outcome


def test_memory_conforms() -> None:
    """Every test passes or is skipped for an undeclared capability."""
    report = run("memory:integration")

    assert report.passed, report.table()
    assert sum(result.outcome is Outcome.PASSED for result in report.results) >= 300
