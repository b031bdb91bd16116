"""Kill the ingesting command at random moments, and run it again until it is done."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from integration.faults.checking import check
from integration.faults.command import DONE, Command, letters_in, state_in
from integration.faults.material import Document, expected, make_documents, refused_by_id, write_jsonl
from integration.faults.outcome import Outcome
from integration.faults.places import Setting, drop

__all__ = ["Moments", "kill", "measure", "run_killed"]


@dataclass(frozen=True, slots=True)
class Moments:
    """The random moments of kills, in seconds after the start: from shortly before the first batch is confirmed on."""

    generator: random.Random
    first: float
    last: float

    def next(self) -> float:
        """Return the next moment."""
        return self.generator.uniform(self.first, self.last)


def kill(setting: Setting) -> Outcome:
    """Kill ingests until the number of kills is reached; each ingest that is done is compared with its input."""
    source = make_documents(setting.documents, setting.seed)
    wanted = expected(source)
    command = Command(setting.folder / "source.jsonl", setting.address, setting.folder)
    write_jsonl(command.source, source)
    drop(setting)
    try:
        moments = measure(command, setting.seed)
        outcome = _checked(setting, source, wanted) + Outcome(documents=len(source), runs=1)
        while outcome.kills < setting.kills and outcome.is_good:
            drop(setting)
            outcome += run_killed(command, moments, setting.kills - outcome.kills)
            outcome += _checked(setting, source, wanted) + Outcome(documents=len(source))
            setting.say(f"{outcome.kills} kills")
    finally:
        drop(setting)
    return outcome


def _checked(setting: Setting, source: Sequence[Document], wanted: dict) -> Outcome:
    outcome = check(setting, wanted, refused_by_id(source), letters_in(setting.folder))
    left = state_in(setting.folder)
    return outcome if left is None else outcome + Outcome(problem=f"the state {left.name} is left")


def measure(command: Command, seed: int) -> Moments:
    """Return the moments for an ingest, which is run once for that."""
    with command.start() as child:
        child.wait_until(lambda: child.confirmed)
        first = child.age
        child.wait()
        last = child.age
    return Moments(random.Random(seed), 0.7 * first, last)


def run_killed(command: Command, moments: Moments, most: int) -> Outcome:
    """Run a command, kill it at a random moment and run it again, until it is done; at most ``most`` kills."""
    outcome = Outcome()
    while True:
        with command.start() as child:
            outcome += Outcome(runs=1)
            if outcome.kills < most and not child.wait(moments.next()) and child.kill():
                outcome += Outcome(kills=1)
                continue
            child.wait()
            outcome += Outcome(retries=child.retries)
        if child.status in DONE:
            return outcome
        return outcome + Outcome(problem=f"the command ended with {child.status}: {child.messages[-3:]}")
