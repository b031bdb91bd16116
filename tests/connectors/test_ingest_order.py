"""Batches that share an id are written in order; all others at once."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from st_connectors.ingest.order import Order

BATCHES = st.lists(st.lists(st.sampled_from("abcde"), max_size=3), max_size=12)


@given(batches=BATCHES, seed=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_a_batch_waits_for_exactly_the_batches_before_it_with_an_id_of_it(batches, seed):
    """For any batches, finished in any order that the waits allow."""
    order = Order()
    turns = [order.add(ids) for ids in batches]
    open_batches = set(range(len(batches)))
    while open_batches:
        free = [n for n in open_batches if open_batches.isdisjoint(turns[n].after)]
        expected = [
            n for n in open_batches if not any(m < n and set(batches[m]) & set(batches[n]) for m in open_batches)
        ]
        assert free == expected
        done = seed.choice(free)
        order.finish(turns[done])
        open_batches.discard(done)


def test_ids_of_finished_batches_are_forgotten():
    """The memory depends on the batches that are not written, not on all ids."""
    order = Order()
    order.finish(order.add(["a"]))
    assert order.add(["a"]).after == frozenset()


def test_a_stop_ends_the_waits():
    """A batch that waits is not written."""
    order = Order()
    order.add(["a"])
    waiting = order.add(["a"])
    answers = []
    thread = threading.Thread(target=lambda: answers.append(order.wait(waiting)))
    thread.start()

    order.stop()
    thread.join(30)

    assert answers == [False]
