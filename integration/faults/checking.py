"""The end of a scenario: the collection and the dead letters compared with the input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from integration.faults.command import Child
from integration.faults.material import NAME, difference, letters_by_id
from integration.faults.outcome import Outcome
from integration.faults.places import Setting
from st_connectors import open_store
from st_connectors.store import Record, Store

__all__ = ["check", "compare", "compare_store", "said"]


def check(setting: Setting, wanted: Mapping[str, Record], refused: Counter[str], letters: Path) -> Outcome:
    """Compare the collection with the records that it should contain, and the dead letters with the refused ids."""
    written = letters_by_id(letters)
    outcome = compare(setting, wanted) + Outcome(letters=written.total())
    if written != refused:
        more, fewer = sorted(written - refused), sorted(refused - written)
        outcome += Outcome(problem=f"the dead letters have {more[:3]} too often, and lack {fewer[:3]}")
    return outcome


def compare(setting: Setting, wanted: Mapping[str, Record]) -> Outcome:
    """Compare the collection with the records that it should contain, by a scan."""
    with closing(open_store(setting.address, NAME)) as store:
        return compare_store(store, wanted, setting.engine)


def compare_store(store: Store, wanted: Mapping[str, Record], engine: str) -> Outcome:
    """Compare an open collection with the records that it should contain, by a scan."""
    store.refresh()
    found = difference(store, wanted)
    if found is None:
        return Outcome()
    return Outcome(lost=found.lost, doubled=found.doubled, problem=f"{engine}: {found}")


def said(child: Child, status: int, *parts: str) -> Outcome:
    """Return a problem unless a command ended with a status and one line with these parts, without a traceback."""
    lines = child.messages
    has_line = any(all(part in line for part in parts) for line in lines)
    if child.status == status and has_line and not any("Traceback" in line for line in lines):
        return Outcome()
    return Outcome(problem=f"expected status {status} and a line with {parts}, got {child.status} and {lines[-3:]}")
