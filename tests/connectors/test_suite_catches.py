"""The suite is tested with stores that have one bug each: every one must fail its test, in the way that is declared."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from st_connectors.testing import Lab, Make, StoreConformance, opener
from st_connectors.testing.base import names_of_tests
from st_connectors.testing.broken import BROKEN, Broken, Passing, wrapping


def run(make: Make, name: str) -> None:
    """Run one test of the suite on the stores that ``make`` opens; raise what the test raises."""
    if name not in names_of_tests(StoreConformance):
        raise LookupError(name)
    base, _, parameter = name.rstrip("]").partition("[")
    function: Callable[..., None] = getattr(StoreConformance(), base)
    arguments: dict[str, object] = {}
    for mark in getattr(function, "pytestmark", []):
        (arguments[mark.args[0]],) = (value for value in mark.args[1] if str(value) == parameter)
    lab = Lab(make)
    try:
        fixtures = {"lab": lab, "make": make}
        arguments |= {name: fixtures[name] for name in inspect.signature(function).parameters if name in fixtures}
        function(**arguments)
    finally:
        lab.close()


def assert_caught(broken: Broken) -> None:
    """Assert that a broken store fails its test with exactly the declared exception type and message."""
    with pytest.raises(broken.raises, match=broken.message) as caught:
        run(broken.breaks(memory()), broken.caught_by)
    assert type(caught.value) is broken.raises


def memory() -> Make:
    return opener(f"memory:{uuid.uuid4().hex}")


def test_there_are_many_broken_stores():
    """There are at least twenty bugs, each caught by an existing test of the suite."""
    assert len(BROKEN) >= 20
    assert {broken.caught_by for broken in BROKEN.values()} <= names_of_tests(StoreConformance)


SKIPPED_ON_MEMORY = {
    "test_undeclared_metrics_are_refused[euclidean]",
    "test_candidates_over_the_stores_window_are_refused",
    "test_records_that_lack_vectors_are_refused_where_undeclared",
    "test_a_record_over_the_size_of_a_request_is_refused",
    "test_quantized_fields_are_exact_at_exact_effort[int8]",
}
"""Tests of limits and capabilities that the memory store does not declare."""


@pytest.mark.parametrize(
    "name",
    sorted({broken.caught_by for broken in BROKEN.values()} - SKIPPED_ON_MEMORY),
)
def test_the_correct_store_passes(name):
    """The test that catches a bug passes on the store without it."""
    run(memory(), name)


@pytest.mark.parametrize("name", list(BROKEN))
def test_the_bug_is_caught(name):
    """A store with the bug fails the test with the declared exception type and message."""
    assert_caught(BROKEN[name])


class Crashing(Passing):
    """A store with a mistake in its own code."""

    def count(self, where=None):
        return self.store.number_of_records(where)


def test_a_crash_is_not_a_catch():
    """An accidental crash in the test that should catch a bug does not count as caught."""
    crashing = replace(BROKEN["drop-leaves-records"], breaks=wrapping(Crashing))

    with pytest.raises(AttributeError, match="number_of_records"):
        assert_caught(crashing)


def test_another_assertion_is_not_a_catch():
    """A failure with another message than the declared one does not count as caught."""
    other = replace(BROKEN["drop-leaves-records"], message="expected records")

    with pytest.raises(AssertionError, match="did not match"):
        assert_caught(other)
