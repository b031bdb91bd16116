"""Kill commands at random moments, and run them again until they are done."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from integration.faults.checking import check, compare
from integration.faults.command import DONE, Command, ingest_command, letters_in, state_in
from integration.faults.material import NAME, Document, expected, is_good, make_documents, refused_by_id, write_jsonl
from integration.faults.outcome import Outcome
from integration.faults.places import MODELS, Setting, drop
from st_connectors import Index

__all__ = ["Moments", "kill", "kill_migrate", "kill_repeatedly", "kill_sync", "measure", "run_killed"]


@dataclass(frozen=True, slots=True)
class Moments:
    """The random moments of kills, in seconds after the start: from shortly before the first batch is confirmed on."""

    generator: random.Random
    first: float
    last: float

    def next(self) -> float:
        """Return the next moment."""
        return self.generator.uniform(self.first, self.last)

    def earlier(self) -> Moments:
        """Return moments for a command that takes half as long."""
        return Moments(self.generator, self.first / 2, self.last / 2)


def kill(setting: Setting) -> Outcome:
    """Kill ingests; each that is done is compared with its input, has its dead letters once and no state."""
    source = make_documents(setting.documents, setting.seed)
    wanted = expected(source)
    path = setting.folder / "source.jsonl"
    write_jsonl(path, source)

    def check_ingested() -> Outcome:
        outcome = check(setting, wanted, refused_by_id(source), letters_in(setting.folder))
        left = state_in(setting.folder)
        return outcome if left is None else outcome + Outcome(problem=f"the state {left.name} is left")

    command = ingest_command(path, setting.address, setting.folder)
    return kill_repeatedly(setting, command, len(source), lambda: None, check_ingested)


def kill_sync(setting: Setting) -> Outcome:
    """Kill syncs of a source with new, changed, unchanged and missing documents; each that is done is compared."""
    before = _all_good(make_documents(setting.documents, setting.seed))
    after = _changed(before, _all_good(make_documents(setting.documents, setting.seed + 1)))
    wanted = expected(after)
    path = setting.folder / "source.jsonl"
    write_jsonl(path, after)

    def store_before() -> None:
        with closing(Index.create(setting.address, collection=NAME, **MODELS)) as index:
            index.sync(before)

    options = ("--delete-missing", "--delete-limit", "50%", "--yes")
    command = ingest_command(path, setting.address, setting.folder, options, verb="sync")
    return kill_repeatedly(setting, command, len(after), store_before, lambda: compare(setting, wanted))


def kill_migrate(setting: Setting) -> Outcome:
    """Kill migrations to another model; each that is done has the vectors of the new one."""
    from st_core import SentenceTransformer

    source = _all_good(make_documents(setting.documents, setting.seed))
    model = str(setting.folder / "model")
    SentenceTransformer("builtin:dense", truncate_dim=64).save_pretrained(model)
    wanted = expected(source, dense=model)

    def store_source() -> None:
        with closing(Index.create(setting.address, collection=NAME, **MODELS)) as index:
            index.ingest(source)

    target = ["--in", setting.address, "--collection", NAME]
    command = Command(["migrate", *target, "--dense", model, "--yes", "--batch", "64", "--json"], setting.folder)
    return kill_repeatedly(setting, command, len(source), store_source, lambda: compare(setting, wanted))


def _all_good(documents: Sequence[Document]) -> list[Document]:
    return [document if is_good(document) else {**document, "year": 1990} for document in documents]


def _changed(before: Sequence[Document], other: Sequence[Document]) -> list[Document]:
    """Return documents of which a quarter is unchanged, and others have another text, another payload or are new."""
    ways = (
        lambda old, _: old,
        lambda old, new: {**new, "id": old["id"]},
        lambda old, new: {**old, "year": new["year"], "tags": new["tags"]},
        lambda old, new: {**new, "id": f"new {old['id']}"},
    )
    return [ways[at % len(ways)](old, new) for at, (old, new) in enumerate(zip(before, other, strict=True))]


def kill_repeatedly(
    setting: Setting, command: Command, documents: int, prepare: Callable[[], None], check_done: Callable[[], Outcome]
) -> Outcome:
    """Run a command with kills until their number is reached, each time after ``drop`` and ``prepare``."""

    def start_over() -> None:
        drop(setting)
        prepare()

    try:
        start_over()
        moments = measure(command, setting.seed)
        outcome = check_done() + Outcome(documents, runs=1)
        while outcome.kills < setting.kills and outcome.is_good:
            start_over()
            killed = run_killed(command, moments, setting.kills - outcome.kills)
            if not killed.kills:  # the machine has less other work than before
                moments = moments.earlier()
            outcome += killed + check_done() + Outcome(documents)
            setting.say(f"{outcome.kills} kills")
    finally:
        drop(setting)
    return outcome


def measure(command: Command, seed: int) -> Moments:
    """Return the moments for an ingest, which is run once for that."""
    with command.start() as child:
        first = child.age if child.wait_until(lambda: child.confirmed) else None
        child.wait()
        last = child.age
    if child.status not in DONE:
        raise RuntimeError(f"the command ended with {child.status}: {child.messages[-3:]}")
    # A migration shows no progress; it begins to write after about a third of its time.
    return Moments(random.Random(seed), last / 3 if first is None else 0.7 * first, last)


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
