"""What a scenario did to an ingest, and what came of it: lines, and the table in ``bench/results``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import describe

__all__ = ["FOLDER", "Outcome", "save"]

FOLDER = Path(__file__).parents[2] / "bench" / "results"
COUNTS = ("documents", "runs", "kills", "faults", "retries", "letters", "lost", "doubled")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of a scenario; outcomes can be added.

    ``runs`` counts ingests, ``kills`` the processes that were killed, ``faults`` the faults on the way to the store or
    on the disk, ``retries`` the repeated requests, ``letters`` the dead letters. ``lost`` and ``doubled`` count records
    by the comparison of the collection with the input. ``problem`` is what is wrong, "" if nothing is.
    """

    documents: int = 0
    runs: int = 0
    kills: int = 0
    faults: int = 0
    retries: int = 0
    letters: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: float = 0.0
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, doubled or otherwise wrong."""
        return not (self.lost or self.doubled or self.problem)

    def __add__(self, other: Outcome) -> Outcome:
        values = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(self)
            if each.name != "problem"
        }
        return Outcome(**values, problem="; ".join(filter(None, (self.problem, other.problem))))

    def __str__(self) -> str:
        counts = ", ".join(f"{getattr(self, name):,} {name}" for name in COUNTS)
        return f"{counts}; {self.seconds:.0f} s" + (f"; WRONG: {self.problem}" if self.problem else "")


def save(results: Mapping[tuple[str, str], Outcome], seed: int, folder: Path = FOLDER) -> None:
    """Replace the stored rows of these scenarios and engines, and write the page of all rows."""
    path = folder / "faults.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stamp = {"date": datetime.now(UTC).date().isoformat(), "machine": describe(), "seed": seed}
    for (scenario, engine), outcome in results.items():
        stored.setdefault(scenario, {})[engine] = asdict(outcome) | stamp
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "faults.md").write_text("\n".join(page(stored)) + "\n", encoding="utf-8")


def page(stored: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a page with a table of all rows, and the machines that they were run on."""
    yield "# Ingests through faults"
    yield ""
    yield "Written by `make faults`; `integration/faults` describes the scenarios. Each ends with the comparison of the"
    yield "collection with the input by a scan: lost and doubled count records."
    yield ""
    yield from _table(stored)
    yield ""
    yield "## Machines"
    yield ""
    yield from _machines(
        [(f"{scenario} {engine}", row) for scenario, rows in sorted(stored.items()) for engine, row in rows.items()]
    )


def _table(stored: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"| scenario | engine | {' | '.join(COUNTS)} | seconds | date | seed |"
    yield "|---" * (len(COUNTS) + 5) + "|"
    for scenario, engines in sorted(stored.items()):
        for engine, row in sorted(engines.items()):
            cells = [f"{row[name]:,}" for name in COUNTS]
            name = f"{scenario}: {row['problem']}" if row["problem"] else scenario
            yield f"| {name} | {engine} | {' | '.join(cells)} | {row['seconds']:.0f} | {row['date']} | {row['seed']} |"


def _machines(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    machines: dict[str, list[str]] = {}
    for name, row in rows:
        machines.setdefault(json.dumps(row["machine"], sort_keys=True), []).append(name)
    for machine, names in machines.items():
        details = ", ".join(f"{key} {value}" for key, value in json.loads(machine).items())
        yield f"- {'all' if len(machines) == 1 else ', '.join(names)}: {details}"
