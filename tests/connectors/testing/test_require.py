"""A required engine cannot be skipped silently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

CONFTEST = Path(__file__).parents[3] / "integration" / "conftest.py"

TESTS = """
import pytest

@pytest.fixture
def engine():
    pytest.skip("no engine here")

def test_needs_it(engine):
    pass

def test_lacks_a_capability():
    pytest.skip("the store does not declare it")
"""


@pytest.fixture
def results(tmp_path, monkeypatch, capsys):
    def run(required, *names):
        (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
        (tmp_path / "test_engine.py").write_text(TESTS)
        monkeypatch.setenv("ST_REQUIRE", required)
        apart = ["-p", "no:cacheprovider", "-p", "no:timeout", "--config-file", os.devnull, "--rootdir", str(tmp_path)]
        chosen = [str(tmp_path / name) for name in names] or [str(tmp_path)]
        status = pytest.main(["-q", "--import-mode=importlib", *apart, *chosen])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_without_a_requirement_an_absent_engine_is_a_skip(results):
    """Both tests are skipped, and the run passes."""
    status, output = results("")
    assert status == 0
    assert "2 skipped" in output


def test_the_skip_of_a_required_engine_is_a_failure(results):
    """The missing engine fails with its reason; the undeclared capability is still skipped."""
    status, output = results("other, engine", "test_engine.py")
    assert status == 1
    assert "ST_REQUIRE names engine" in output
    assert "no engine here" in output
    assert "1 skipped, 1 error" in output or "1 failed, 1 skipped" in output


def test_a_required_engine_without_tests_stops_the_run(results):
    """A misspelled name fails the run."""
    status, output = results("enigne")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "enigne" in output
