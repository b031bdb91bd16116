"""``run``: the suite without a test file, for the command line and for checking a server."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from st_connectors.schema import DenseField, Schema
from st_connectors.testing import CHECKS
from st_connectors.testing.opening import Make, opener

if TYPE_CHECKING:
    from st_connectors.testing.base import Gap

__all__ = ["Outcome", "Report", "Result", "run"]


class Outcome(StrEnum):
    """How a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The store does not declare the capability that the test is about."""
    GAP = "known gap"
    """The test failed as its known gap declares."""


@dataclass(frozen=True, slots=True)
class Result:
    """One test: its group, name, rule and outcome, and the reason if it did not pass."""

    group: str
    test: str
    rule: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The results of the suite for one address."""

    address: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one test ran and none failed."""
        return bool(self.results) and all(result.outcome is not Outcome.FAILED for result in self.results)

    @property
    def failures(self) -> list[Result]:
        """The tests that failed."""
        return [result for result in self.results if result.outcome is Outcome.FAILED]

    def rows(self) -> list[tuple[str, int, int, int, int]]:
        """Return, for each group, its name and its numbers of passed, failed and skipped tests and known gaps."""
        from st_connectors.testing.suite import StoreConformance  # not before pytest has rewritten its assertions

        counts: dict[str, Counter[Outcome]] = {cls.__name__.lower(): Counter() for cls in StoreConformance.__bases__}
        for result in self.results:
            counts.setdefault(result.group, Counter())[result.outcome] += 1
        return [
            (group, count[Outcome.PASSED], count[Outcome.FAILED], count[Outcome.SKIPPED], count[Outcome.GAP])
            for group, count in counts.items()
            if count
        ]

    def table(self) -> str:
        """Return the rows as text, followed by the failures with rules and reasons."""
        lines = [f"{'group':<12}{'passed':>8}{'failed':>8}{'skipped':>9}{'gaps':>6}"]
        lines += [
            f"{group:<12}{passed:>8}{failed:>8}{skipped:>9}{gaps:>6}"
            for group, passed, failed, skipped, gaps in self.rows()
        ]
        for failure in self.failures:
            lines += ["", failure.test, f"  rule:   {failure.rule}", f"  reason: {failure.reason}"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "address": self.address,
            "passed": self.passed,
            "results": [
                {
                    "group": result.group,
                    "test": result.test,
                    "rule": result.rule,
                    "outcome": result.outcome.value,
                    "reason": result.reason,
                }
                for result in self.results
            ],
        }


def run(
    address: str,
    *,
    client: object | None = None,
    gaps: Mapping[str, Gap] | None = None,
    progress: Callable[[Result], None] | None = None,
) -> Report:
    """Run the whole suite on the store at an address, in collections of unique names that are dropped afterwards.

    ``gaps`` are known gaps by test name, as on a subclass; ``progress`` is called with each result. Raises the
    store's error if it cannot be opened or reached at all, and RuntimeError if the suite itself cannot run.
    """
    make = opener(address, client=client)
    _reach(make)
    listener = _Listener(make, gaps or {}, progress)
    output = io.StringIO()
    with TemporaryDirectory(prefix="st-connectors-conform-") as folder, contextlib.redirect_stdout(output):
        status = pytest.main(
            [
                str(Path(__file__).with_name("subject.py")),
                "--quiet",
                "--import-mode=importlib",
                f"--rootdir={folder}",
                f"--basetemp={Path(folder) / 'tmp'}",
                f"--config-file={os.devnull}",
                "--capture=no",
                "--tb=native",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:timeout",
            ],
            plugins=[listener],
        )
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise RuntimeError(f"the suite cannot run ({pytest.ExitCode(status).name}): {output.getvalue()[-2000:]}")
    return Report(address, tuple(listener.results))


def _reach(make: Make) -> None:
    """Raise early, and only once, if the address is wrong, an extra is missing, or the server does not answer."""
    store = make(Schema("conformance_reach", {"dense": DenseField(2)}))
    store.drop()
    store.close()


class _Listener:
    """A pytest plugin that passes the store to the suite and records the results."""

    def __init__(self, make: Make, gaps: Mapping[str, Gap], progress: Callable[[Result], None] | None) -> None:
        self.results: list[Result] = []
        self._make = make
        self._gaps = gaps
        self._progress = progress

    def pytest_sessionstart(self) -> None:
        """Register assertion rewriting for the suite's modules, which pytest installs only when it starts."""
        pytest.register_assert_rewrite(*(name for name in CHECKS if name not in sys.modules))

    @pytest.fixture(scope="session")
    def run_make(self) -> Make:
        """Return what opens stores in this run."""
        return self._make

    @pytest.fixture(scope="session")
    def run_gaps(self) -> Mapping[str, Gap]:
        """Return the known gaps of this run."""
        return self._gaps

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Record the result of a test, or of a failed setup or teardown."""
        report = yield
        if (
            call.when == "call"
            or (call.when == "setup" and not report.passed)
            or (call.when == "teardown" and report.failed)
        ):
            self._record(item, report, call)
        return report

    def _record(self, item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        result = Result(
            _group_of(item),
            item.name,
            _rule_of(item),
            Outcome.GAP if report.skipped and hasattr(report, "wasxfail") else Outcome(report.outcome),
            "" if call.excinfo is None else _reason(call.excinfo.value),
        )
        self.results.append(result)
        if self._progress is not None:
            self._progress(result)


def _group_of(item: pytest.Item) -> str:
    """Return the name of the class that defines a test, in lower case."""
    name = item.name.partition("[")[0]
    owners = [cls for cls in _class_of(item).__mro__ if name in vars(cls)]
    return owners[0].__name__.lower() if owners else ""


def _rule_of(item: pytest.Item) -> str:
    function = getattr(_class_of(item), item.name.partition("[")[0], None)
    return (getattr(function, "__doc__", None) or "").strip()


def _class_of(item: pytest.Item) -> type:
    return getattr(item, "cls", None) or type(None)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])}"[:500]
