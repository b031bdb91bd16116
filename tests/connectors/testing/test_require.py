"""A required engine cannot be skipped in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[3] / "integration" / "conftest.py"

TESTS = """
import pytest

@pytest.fixture
def engine():
    pytest.skip("no engine here")

def test_needs_it(engine):
    pass

def test_lacks_an_ability():
    pytest.skip("the store does not declare it")
"""


def results(folder, required, *arguments):
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "test_engine.py").write_text(TESTS)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--config-file",
            os.devnull,
            "--rootdir",
            folder,
            *arguments,
        ],
        cwd=folder,
        env={**os.environ, "ST_REQUIRE": required},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_without_a_requirement_an_absent_engine_is_a_skip(tmp_path):
    """Two skips, and a green run."""
    status, output = results(tmp_path, "")
    assert status == 0
    assert "2 skipped" in output


def test_the_skip_of_a_required_engine_is_a_failure(tmp_path):
    """The absent engine fails with its reason; the undeclared ability stays a skip."""
    status, output = results(tmp_path, "other, engine", "test_engine.py")
    assert status == 1
    assert "ST_REQUIRE names engine" in output
    assert "no engine here" in output
    assert "1 skipped, 1 error" in output or "1 failed, 1 skipped" in output


def test_a_required_engine_without_tests_stops_the_run(tmp_path):
    """A misspelt name is not a green run."""
    status, output = results(tmp_path, "enigne")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "enigne" in output
