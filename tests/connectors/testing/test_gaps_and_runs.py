"""Known gaps are strict, their names are checked, tests are not overridden, and the suite runs by address."""

from __future__ import annotations

import json
import os

import pytest

from st_connectors.registry import collections
from st_connectors.testing import Gap, StoreConformance, opener, report, run
from st_connectors.testing.base import names_of_tests
from st_connectors.testing.broken import BROKEN
from st_connectors.testing.report import Outcome

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["test_truth_tabel", "test_truth_table[fooo]", "truth_table", ""])
def test_a_gap_that_names_no_test_stops_collection(name):
    """A misspelled name raises an error when the class is defined, and the message contains it."""
    with pytest.raises(TypeError, match=r"unknown tests in TestMine\.gaps"):
        type("TestMine", (StoreConformance,), {"gaps": {name: Gap("misspelled")}})


def test_gaps_may_name_a_test_or_one_case_of_it():
    """A gap is a test name, with the parameter in brackets for a single case."""
    gaps = {"test_truth_table": Gap("none"), "test_truth_table[foo]": Gap("one"), "test_counts_are_exact": Gap("two")}
    assert type("TestMine", (StoreConformance,), {"gaps": gaps}).gaps == gaps


@pytest.mark.parametrize("replaced", [None, lambda self: None], ids=["removed", "overridden"])
def test_an_overridden_test_is_reported(replaced):
    """A subclass that removes or replaces a test fails a test of the suite."""
    mine = type("TestMine", (StoreConformance,), {"test_counts_are_exact": replaced, "__module__": "elsewhere"})
    with pytest.raises(AssertionError):
        mine().test_every_test_is_the_suites_own()


def test_a_subclass_may_add_tests_of_its_own():
    """A test with a new name is not an override."""
    mine = type("TestMine", (StoreConformance,), {"test_something_else": lambda self: None, "__module__": "elsewhere"})
    mine().test_every_test_is_the_suites_own()


class Outcomes:
    """A pytest plugin that records the outcomes of tests."""

    def __init__(self):
        self.ended = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.ended[report.location[2].partition(".")[2]] = report.outcome


GAPPED = """
import uuid
from st_connectors.registry import collections
from st_connectors.testing import Gap, StoreConformance, opener
from st_connectors.testing.broken import BROKEN
import pytest

class TestGapped(StoreConformance):
    gaps = {
        "test_counts_are_exact": Gap("it estimates"),
        "test_limits_are_kept[1]": Gap("fixed long ago"),
        "test_scan_of_nothing_is_empty": Gap("of another kind", ZeroDivisionError),
    }

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls):
        good = opener(f"memory:{uuid.uuid4().hex}")
        def broken(what):
            store = BROKEN["count-estimated"].breaks(good)(what)
            store.scan = lambda **options: iter([1])
            return store
        return broken
"""


def test_gaps_are_strict(tmp_path):
    """A gap must fail with its own exception; a fixed gap or another failure fails the run."""
    (tmp_path / "test_gapped.py").write_text(GAPPED)
    outcomes = Outcomes()
    selected = "counts_are_exact or (limits_are_kept and not over) or scan_of_nothing"
    apart = [
        "--import-mode=importlib",
        f"--rootdir={tmp_path}",
        f"--config-file={os.devnull}",
        "-p",
        "no:cacheprovider",
    ]
    pytest.main([str(tmp_path), "-q", *apart, "-p", "no:timeout", "-k", selected], plugins=[outcomes])
    assert outcomes.ended["test_counts_are_exact"] == "skipped"  # pytest's outcome of an expected failure
    assert outcomes.ended["test_limits_are_kept[1]"] == "failed"
    assert outcomes.ended["test_limits_are_kept[10]"] == "passed"
    assert outcomes.ended["test_scan_of_nothing_is_empty"] == "failed"


def test_run_reports_every_test_of_the_suite():
    """The suite runs by address without a test file; the report lists each test with its rule, and a table by group."""
    progress = []
    summary = run("memory:run-reports", progress=progress.append)

    assert summary.passed, summary.table()
    assert {result.test for result in summary.results} >= {
        name for name in names_of_tests(StoreConformance) if "[" in name
    }
    assert progress == list(summary.results)
    assert all(result.rule for result in summary.results)
    assert {group for group, *_ in summary.rows()} == {
        *("shape", "life", "writes", "border", "fidelity", "dense", "sparse", "text", "filtering", "fusing"),
        *("scan", "threads", "machine"),
    }
    assert sum(sum(counts) for _, *counts in summary.rows()) == len(summary.results)
    assert all(result.reason for result in summary.results if result.outcome is Outcome.SKIPPED)
    assert json.loads(json.dumps(summary.to_json()))["passed"] is True
    assert collections("memory:run-reports") == [], "the suite must drop the collections it creates"


def test_run_reports_failures(monkeypatch):
    """A store with a bug does not pass; the table shows the test, its rule and the reason."""
    monkeypatch.setattr(
        report, "opener", lambda address, client=None: BROKEN["count-estimated"].breaks(opener(address))
    )
    summary = run("memory:run-fails")

    assert not summary.passed
    assert "test_counts_are_exact" in {failure.test for failure in summary.failures}
    assert "AssertionError" in next(
        failure.reason for failure in summary.failures if failure.test == "test_counts_are_exact"
    )
    assert "is exact right after" in summary.table()


def test_run_with_a_wrong_address_says_so():
    """An invalid address raises ValueError before any test runs."""
    with pytest.raises(ValueError, match="scheme"):
        run("nowhere://host")


def test_run_accepts_gaps():
    """Gaps passed to ``run`` are strict and counted separately, and a misspelled one fails every test."""
    wrong = {
        "test_counts_are_exact": Gap("fixed long ago"),
        "test_scan_of_nothing_is_empty": Gap("of another kind", KeyError),
    }
    summary = run("memory:run-gaps", gaps=wrong)
    assert {result.test for result in summary.failures} == set(wrong)

    summary = run("memory:run-gaps", gaps={"test_truth_tabel": Gap("misspelled")})
    assert {result.outcome for result in summary.results} == {Outcome.FAILED}
    assert "test_truth_tabel" in summary.failures[0].reason


def test_known_gaps_of_a_run_are_counted_and_do_not_fail_it(monkeypatch):
    """A test that fails exactly as declared is a gap."""
    monkeypatch.setattr("st_connectors.memory.MemoryStore.refresh", lambda self: None)
    broken = run("memory:run-gapped")
    failed = {result.test for result in broken.failures}
    assert failed == {
        "test_any_call_before_create_raises_not_found[refresh]",
        "test_any_call_after_drop_raises_not_found[refresh]",
    }

    summary = run(
        "memory:run-gapped", gaps={name: Gap("refresh does nothing", pytest.fail.Exception) for name in failed}
    )
    assert summary.passed
    assert {result.test for result in summary.results if result.outcome is Outcome.GAP} == failed
    assert next(row for row in summary.rows() if row[0] == "life")[-1] == 2
    assert summary.table().splitlines()[2].split()[-1] == "2"
