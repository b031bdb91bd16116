"""Sets of positions agree with sets of integers, and know their first gap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.ingest.positions import Positions

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda span: (span[0], sum(span))), max_size=20)


@given(SPANS)
def test_positions_are_a_set(spans):
    """For any intervals in any order, with overlaps: the same members, the first gap, the end, and no touching pair."""
    positions = Positions(spans)
    expected = {position for start, end in spans for position in range(start, end)}

    assert {position for position in range(100) if position in positions} == expected
    assert positions.prefix == next(position for position in range(100) if position not in expected)
    assert positions.end == max(expected, default=-1) + 1
    intervals = positions.intervals
    assert all(end < start for (_, end), (start, _) in pairwise(intervals))
    assert Positions(intervals).intervals == intervals


@pytest.mark.parametrize("interval", [(3, 3), (4, 3), (-1, 2)])
def test_an_empty_interval_is_refused(interval):
    """It would be a batch without documents."""
    with pytest.raises(ValueError, match="0 <= start < end"):
        Positions([interval])
