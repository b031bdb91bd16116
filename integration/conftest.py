"""Fixtures and marks of the integration tests.

``ST_REQUIRE`` names engines, separated by commas, whose tests must not be skipped. A test belongs to the engine named
by its module (``test_qdrant.py``) or by a mark: ``@pytest.mark.engine("qdrant")``. A test marked
``client_at_most(8)`` or ``client_at_least(9)`` is left out for other major versions of elasticsearch-py; ``make
integration`` has an environment for each.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from importlib.metadata import version

import pytest

from integration.engines import Engines, running

REQUIRED = frozenset(name.strip() for name in os.environ.get("ST_REQUIRE", "").split(",") if name.strip())


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line(
        "markers", "engine(name): the engine that a test needs, where its module is not named for it"
    )
    config.addinivalue_line("markers", "client_at_most(major): the newest elasticsearch-py that the test is for")
    config.addinivalue_line("markers", "client_at_least(major): the oldest elasticsearch-py that the test is for")


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Yield the servers that tests request."""
    with running() as engines:
        yield engines


def engine_of(item: pytest.Item) -> str:
    """Return the engine that a test needs."""
    mark = item.get_closest_marker("engine")
    return str(mark.args[0]) if mark is not None else item.path.stem.removeprefix("test_")


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Leave out tests for another client; fail if a required engine has no tests, such as a misspelled one."""
    others = [item for item in items if not _client_fits(item)]
    items[:] = [item for item in items if item not in others]
    session.config.hook.pytest_deselected(items=others)
    chosen = session.config.getoption("keyword") or session.config.getoption("markexpr") or _narrowed(session)
    missing = REQUIRED - {engine_of(item) for item in items}
    if missing and not chosen:
        raise pytest.UsageError(f"ST_REQUIRE names engines that have no tests: {', '.join(sorted(missing))}")


def _client_fits(item: pytest.Item) -> bool:
    """Return whether the major version of elasticsearch-py is one that a test is for."""
    least, most = item.get_closest_marker("client_at_least"), item.get_closest_marker("client_at_most")
    if least is None and most is None:
        return True
    major = int(version("elasticsearch").partition(".")[0])
    return (least is None or major >= least.args[0]) and (most is None or major <= most.args[0])


def _narrowed(session: pytest.Session) -> bool:
    """Return whether single files or tests were selected."""
    return any(".py" in argument for argument in session.config.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a missing required engine into a failure; skips for undeclared capabilities stay."""
    report = yield
    absent = report.when == "setup" and report.skipped and not hasattr(report, "wasxfail")
    if absent and engine_of(item) in REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"ST_REQUIRE names {engine_of(item)}, and its test was skipped: {report.longrepr}"
    return report
