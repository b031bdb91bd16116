"""Scan: every record once, whole, also while others write."""

from __future__ import annotations

import pytest

from st_connectors.filters import Eq, Exists, Not
from st_connectors.testing import corpus
from st_connectors.testing.agree import assert_records_agree
from st_connectors.testing.base import Group, Lab, dense_records

__all__ = ["Scan"]


class Scan(Group):
    """Reading a collection from one end to the other."""

    @pytest.mark.parametrize("batch", [1, 7, 63, 64, 65, 1000])
    def test_scan_gives_every_record_once(self, lab: Lab, batch: int) -> None:
        """Whatever the batch, no record is skipped or repeated, and each is whole."""
        pair = lab.library()
        got = list(pair.store.scan(batch=batch))

        assert len({record.id for record in got}) == len(got) == corpus.SIZE
        wanted = sorted(pair.oracle.scan(), key=lambda record: record.id)
        assert_records_agree(sorted(got, key=lambda record: record.id), wanted, pair.rtol("dense"))

    @pytest.mark.parametrize("batch", [1, 5, 1000])
    def test_scan_keeps_to_the_filter(self, lab: Lab, batch: int) -> None:
        """A filtered scan gives every record that the filter lets through, once."""
        pair = lab.library()
        for where in (Eq("flag", True), Not(Exists("word")), Eq("whole", 77)):
            got = [record.id for record in pair.store.scan(where=where, batch=batch)]
            assert sorted(got) == sorted(record.id for record in pair.oracle.scan(where=where))

    def test_scan_of_nothing_is_empty(self, lab: Lab) -> None:
        """An empty collection has nothing to scan and counts 0."""
        store = lab.new()
        assert list(store.scan()) == []
        assert store.count() == 0

    def test_scan_sees_unchanged_records_while_others_are_written(self, lab: Lab) -> None:
        """Records that nobody touches during a scan are seen once, whatever is put, replaced and deleted beside them."""
        store = lab.pair(records=dense_records(60)).store
        still = {f"r{row:03d}" for row in range(0, 60, 2)}
        seen = []
        for turn, record in enumerate(store.scan(batch=10)):
            seen.append(record.id)
            if turn % 10 == 5:
                store.upsert(dense_records(5, start=100 + turn))
                store.upsert([other for other in dense_records(60, changed=turn) if other.id not in still][:10])
                store.delete([f"r{59 - turn:03d}"] if turn % 2 == 0 else [f"r{58 - turn:03d}"])
                store.refresh()

        kept = [name for name in seen if name in still]
        gone = {f"r{row:03d}" for row in range(60)} - {record.id for record in store.scan()}
        assert len(kept) == len(set(kept))
        assert still - gone <= set(kept)

    def test_a_scan_may_be_left_early(self, lab: Lab) -> None:
        """Leaving a scan before its end leaves nothing behind that troubles the next."""
        store = lab.library().store
        for _ in range(3):
            scan = store.scan(batch=5)
            assert len([next(scan) for _ in range(7)]) == 7
        assert len(list(store.scan())) == corpus.SIZE

    def test_counts_are_exact(self, lab: Lab) -> None:
        """``count`` is a number of records, not an estimate, right after ``refresh``."""
        pair = lab.pair()
        for step in range(1, 6):
            pair.upsert(dense_records(13 * step))
            assert pair.store.count() == 13 * step
            pair.delete([f"r{step:03d}"])
            assert pair.store.count() == 13 * step - 1
