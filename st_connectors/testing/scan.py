"""Scan: every record once and complete, also during concurrent writes."""

from __future__ import annotations

import pytest

from st_connectors.filters import Eq, Exists, Not
from st_connectors.testing import corpus
from st_connectors.testing.agree import assert_records_agree
from st_connectors.testing.base import Group, Lab, dense_records

__all__ = ["Scan"]


class Scan(Group):
    """Reading a whole collection."""

    @pytest.mark.parametrize("batch", [1, 7, 63, 64, 65, 1000])
    def test_scan_gives_every_record_once(self, lab: Lab, batch: int) -> None:
        """With any batch size, no record is skipped or repeated, and each is complete."""
        pair = lab.library()
        got = list(pair.store.scan(batch=batch))

        assert len({record.id for record in got}) == len(got) == corpus.SIZE
        wanted = sorted(pair.oracle.scan(), key=lambda record: record.id)
        assert_records_agree(sorted(got, key=lambda record: record.id), wanted, pair.rtol("dense"))

    @pytest.mark.parametrize("batch", [1, 5, 1000])
    def test_scan_keeps_to_the_filter(self, lab: Lab, batch: int) -> None:
        """A filtered scan returns every matching record once."""
        pair = lab.library()
        for where in (Eq("flag", True), Not(Exists("word")), Eq("whole", 77)):
            got = [record.id for record in pair.store.scan(where=where, batch=batch)]
            assert sorted(got) == sorted(record.id for record in pair.oracle.scan(where=where))

    def test_scan_of_nothing_is_empty(self, lab: Lab) -> None:
        """An empty collection has no records to scan and counts 0."""
        store = lab.new()
        assert list(store.scan()) == []
        assert store.count() == 0

    def test_scan_sees_unchanged_records_while_others_are_written(self, lab: Lab) -> None:
        """Records that do not change during a scan are returned once, whatever is stored or deleted meanwhile."""
        store = lab.pair(records=dense_records(60)).store
        unchanged = {f"r{row:03d}" for row in range(0, 60, 2)}
        seen = []
        for turn, record in enumerate(store.scan(batch=10)):
            seen.append(record.id)
            if turn % 10 == 5:
                store.upsert(dense_records(5, start=100 + turn))
                store.upsert([other for other in dense_records(60, changed=turn) if other.id not in unchanged][:10])
                store.delete([f"r{59 - turn:03d}"] if turn % 2 == 0 else [f"r{58 - turn:03d}"])
                store.refresh()

        seen_unchanged = [name for name in seen if name in unchanged]
        deleted = {f"r{row:03d}" for row in range(60)} - {record.id for record in store.scan()}
        assert len(seen_unchanged) == len(set(seen_unchanged))
        assert unchanged - deleted <= set(seen_unchanged)

    def test_a_scan_may_be_left_early(self, lab: Lab) -> None:
        """A scan that is abandoned early does not affect the next one."""
        store = lab.library().store
        for _ in range(3):
            scan = store.scan(batch=5)
            assert len([next(scan) for _ in range(7)]) == 7
        assert len(list(store.scan())) == corpus.SIZE

    def test_counts_are_exact(self, lab: Lab) -> None:
        """``count`` is exact right after ``refresh``, not an estimate."""
        pair = lab.pair()
        for step in range(1, 6):
            pair.upsert(dense_records(13 * step))
            assert pair.store.count() == 13 * step
            pair.delete([f"r{step:03d}"])
            assert pair.store.count() == 13 * step - 1
