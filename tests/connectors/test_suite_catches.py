"""The suite is tested by stores with one bug each: every one must fail the test that is named for it."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable

import pytest

from st_connectors.errors import StoreError
from st_connectors.testing import Lab, Make, StoreConformance, opener
from st_connectors.testing.base import names_of_tests
from st_connectors.testing.broken import BROKEN


def run(make: Make, name: str) -> None:
    """Run one test of the suite on the stores of ``make``; raises what the test raises."""
    if name not in names_of_tests(StoreConformance):
        raise LookupError(name)
    base, _, parameter = name.rstrip("]").partition("[")
    function: Callable[..., None] = getattr(StoreConformance(), base)
    arguments: dict[str, object] = {}
    for mark in getattr(function, "pytestmark", []):
        (arguments[mark.args[0]],) = (value for value in mark.args[1] if str(value) == parameter)
    lab = Lab(make)
    try:
        known = {"lab": lab, "make": make}
        arguments |= {name: known[name] for name in inspect.signature(function).parameters if name in known}
        function(**arguments)
    finally:
        lab.close()


def memory() -> Make:
    return opener(f"memory:{uuid.uuid4().hex}")


def test_there_are_many_broken_stores():
    """At least twenty bugs, each caught by a test that the suite has."""
    assert len(BROKEN) >= 20
    assert {broken.caught_by for broken in BROKEN.values()} <= names_of_tests(StoreConformance)


SKIPPED_ON_MEMORY = {
    "test_undeclared_metrics_are_refused[euclidean]",
    "test_candidates_over_the_stores_window_are_refused",
    "test_records_that_lack_vectors_are_refused_where_undeclared",
    "test_a_record_over_the_size_of_a_request_is_refused",
    "test_quantized_fields_are_exact_at_exact_effort[int8]",
}
"""What memory has no limit for, or does not declare, or needs not."""


@pytest.mark.parametrize(
    "name",
    sorted({broken.caught_by for broken in BROKEN.values()} - SKIPPED_ON_MEMORY),
)
def test_the_good_store_passes(name):
    """The test that catches a bug passes on the store without it."""
    run(memory(), name)


@pytest.mark.parametrize("name", list(BROKEN))
def test_the_bug_is_caught(name):
    """A store with the bug fails the test named for it, by an assertion or an error, not by a skip."""
    broken = BROKEN[name]
    with pytest.raises((AssertionError, pytest.fail.Exception, StoreError)):
        run(broken.breaks(memory()), broken.caught_by)
