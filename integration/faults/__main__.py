"""The command `python -m integration.faults`."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from integration.faults.outcome import Outcome, save
from integration.faults.places import Setting, placed
from integration.faults.scenarios import SCENARIOS, Scenario, SkippedError
from integration.stores import Absent

ENGINES = ("memory", "qdrant-edge", "milvus-lite", "elasticsearch-9", "opensearch")
SHORT = {"edge": "qdrant-edge", "milvus": "milvus-lite", "elasticsearch": "elasticsearch-9"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected scenarios, and return the exit status: 1 if a record was lost or doubled, or all else failed."""
    options = _options(arguments)
    print(f"seed {options.seed}", flush=True)
    results: dict[tuple[str, str], Outcome] = {}
    for engine in options.engine or ENGINES:
        chosen = [SCENARIOS[name] for name in options.scenario or SCENARIOS if engine in SCENARIOS[name].engines]
        if not chosen:
            continue
        try:
            with TemporaryDirectory() as folder, placed(engine, Path(folder)) as (address, node):
                for scenario in chosen:
                    setting = Setting(engine, address, Path(folder), options.seed, 0, 0, node)
                    _run(scenario, setting, options, results)
        except Absent as error:
            print(f"{engine}: not run, because {error}")
    if not results:
        print("nothing was run", file=sys.stderr)
        return 2
    _print_table(results)
    return 0 if all(outcome.is_good for outcome in results.values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m integration.faults", description="Ingest through faults.")
    names = [*ENGINES, *SHORT]
    parser.add_argument("--engine", action="append", choices=names, help="engine; repeat for several (default: all)")
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS], help="scenario; repeat (default: all)")
    parser.add_argument("--documents", type=int, help="documents of each ingest (default: by the scenario)")
    parser.add_argument("--kills", type=int, help="processes to kill (default: by the scenario)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--no-save", action="store_true", help="do not write bench/results")
    options = parser.parse_args(arguments)
    options.engine = [SHORT.get(name, name) for name in options.engine or ()]
    return options


def _run(
    scenario: Scenario, setting: Setting, options: argparse.Namespace, results: dict[tuple[str, str], Outcome]
) -> None:
    """Run a scenario in a folder of its own, print its line, and store its outcome."""
    began = time.monotonic()
    title = f"{scenario.name} {setting.engine}"
    with TemporaryDirectory() as folder:
        place = replace(
            setting,
            folder=Path(folder),
            documents=options.documents or scenario.documents,
            kills=scenario.kills if options.kills is None else options.kills,
            say=_printer(title),
        )
        try:
            outcome = scenario.run(place)
        except SkippedError as error:
            print(f"{title}: skipped, because {error}", flush=True)
            return
        except Exception as error:  # noqa: BLE001  # the other scenarios go on
            outcome = Outcome(problem=f"{type(error).__name__}: {error}")
    results[scenario.name, setting.engine] = replace(outcome, seconds=time.monotonic() - began)
    print(f"{title}: {results[scenario.name, setting.engine]}", flush=True)
    if not options.no_save:
        save(results, options.seed)


def _printer(title: str):
    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"{title}: {text}", file=sys.stderr, flush=True)

    return say


def _print_table(results: dict[tuple[str, str], Outcome]) -> None:
    from integration.faults.outcome import COUNTS

    rows = [("scenario", "engine", *COUNTS, "seconds")]
    for (scenario, engine), outcome in results.items():
        counts = [f"{getattr(outcome, name):,}" for name in COUNTS]
        rows.append((scenario, engine, *counts, f"{outcome.seconds:.0f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
