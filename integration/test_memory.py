"""The suite on the oracle, as users start it: by address, through the installed entry point."""

from __future__ import annotations

from st_connectors.testing import run
from st_connectors.testing.report import Outcome


def test_memory_conforms() -> None:
    """Every test passes but those for what it does not declare."""
    report = run("memory:integration")

    assert report.passed, report.table()
    assert sum(result.outcome is Outcome.PASSED for result in report.results) >= 300
