"""Batches by a budget of tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_core.engine.batches import Budget, cut, restore, run_batches

LENGTHS = st.lists(st.integers(0, 300), max_size=60).map(lambda found: np.array(found, np.int64))
BUDGETS = st.builds(
    Budget, st.integers(1, 600), st.none() | st.integers(1, 9), st.booleans(), st.sampled_from([1.0, 1.5, 2.0])
)


class Full(RuntimeError):
    """Stands for a card's error."""


def is_full(error):
    return isinstance(error, Full)


@given(LENGTHS, BUDGETS)
def test_every_input_is_in_exactly_one_batch(lengths, budget):
    """No input is lost and none comes twice."""
    positions = [position for batch in cut(lengths, budget) for position in batch.tolist()]

    assert sorted(positions) == list(range(lengths.size))


@given(LENGTHS, BUDGETS)
def test_no_batch_is_over_the_budget(lengths, budget):
    """Rows times the longest, and all tokens, stay within it, but for a single input that alone is over it."""
    for batch in cut(lengths, budget):
        padded = int(batch.size * max(1, lengths[batch].max()))
        assert batch.size == 1 or padded <= budget.tokens * budget.padding
        assert batch.size == 1 or lengths[batch].sum() <= budget.tokens
        assert budget.rows is None or batch.size <= budget.rows


@given(LENGTHS, BUDGETS)
def test_even_batches_hold_inputs_of_one_length(lengths, budget):
    """And as many of them as the budget lets."""
    for batch in cut(lengths, replace(budget, even=True)):
        assert len(set(lengths[batch].tolist())) == 1

    found = cut(np.array([3, 1, 3, 1, 3]), Budget(100, even=True))
    assert [batch.tolist() for batch in found] == [[0, 2, 4], [1, 3]]


def test_batches_without_padding_are_filled():
    """To the number of tokens, unless too much would be padded."""
    lengths = np.array([2, 9, 2, 5])

    assert [batch.tolist() for batch in cut(lengths, Budget(16, padding=2.0))] == [[1, 3, 0], [2]]
    assert [batch.tolist() for batch in cut(lengths, Budget(16, padding=1.5))] == [[1, 3], [0, 2]]
    assert [batch.tolist() for batch in cut(lengths, Budget(16))] == [[1], [3, 0, 2]]


@given(LENGTHS, BUDGETS)
def test_longest_inputs_come_first(lengths, budget):
    """The first batch is the largest, so that memory that is too small shows at once."""
    order = [int(lengths[position]) for batch in cut(lengths, budget) for position in batch]

    assert order == sorted(order, reverse=True)


@given(LENGTHS, BUDGETS)
def test_results_come_back_in_order(lengths, budget):
    """What is put together again is what a loop over the inputs gives."""
    parts = [(batch, [int(lengths[position]) for position in batch]) for batch in cut(lengths, budget)]

    assert restore(parts, lengths.size) == lengths.tolist()


@given(LENGTHS, BUDGETS, st.integers(1, 200))
def test_out_of_memory_halves_the_batches_and_goes_on(lengths, budget, fits):
    """A runner that holds only so many tokens still runs every input once, whatever the budget was."""
    lengths = np.minimum(lengths, fits)
    done = []

    def run(batch):
        if batch.size * max(1, int(lengths[batch].max())) > fits:
            raise Full
        done.extend(batch.tolist())
        return batch.size

    sizes = [size for _, size in run_batches(lengths, budget, run, is_full)]

    assert sorted(done) == list(range(lengths.size))
    assert sum(sizes) == lengths.size


def test_the_smaller_budget_stays_for_the_rest_of_the_call():
    """After one failure the following batches are small from the start."""
    tried = []

    def run(batch):
        tried.append(batch.size)
        if batch.size > 4:
            raise Full

    list(run_batches(np.ones(64, np.int64), Budget(16), run, is_full))

    assert tried == [16, 8, *[4] * 16]


def test_padding_counts_after_a_failure():
    """Otherwise an input of one token and one of none would be the same batch again and again."""

    def run(batch):
        if batch.size > 1:
            raise Full
        return batch.tolist()

    found = run_batches(np.array([1, 0]), Budget(1, padding=2.0), run, is_full)

    assert [result for _, result in found] == [[0], [1]]


def test_one_input_that_does_not_fit_raises():
    """There is nothing left to halve, so the error comes through."""

    def run(_batch):
        raise Full

    with pytest.raises(Full):
        list(run_batches(np.array([7, 7]), Budget(100), run, is_full))


def test_other_errors_come_through_at_once():
    """Only an error that means memory is answered with smaller batches."""
    tried = []

    def run(batch):
        tried.append(batch)
        raise RuntimeError("shape")

    with pytest.raises(RuntimeError, match="shape"):
        list(run_batches(np.ones(8, np.int64), Budget(8), run, is_full))
    assert len(tried) == 1


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"tokens": 8, "rows": 0}, {"tokens": 8, "rows": -1}])
def test_a_budget_that_holds_nothing_is_refused(wrong):
    """Neither tokens nor rows may be less than one."""
    with pytest.raises(ValueError, match=r"budget|batch_size"):
        Budget(**wrong)
