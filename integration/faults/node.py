"""Kill the server in the middle of an ingest, and start it again."""

from __future__ import annotations

import random

from integration.faults.checking import check
from integration.faults.command import DONE, Child, ingest_command, letters_in
from integration.faults.material import expected, make_documents, refused_by_id, write_jsonl
from integration.faults.outcome import Outcome
from integration.faults.places import Setting, SkippedError, drop
from integration.nodes.run import Running

__all__ = ["restart_node"]


def restart_node(setting: Setting) -> Outcome:
    """Kill the node at random points of an ingest, which waits until the node is back."""
    if setting.node is None:
        raise SkippedError("only a node that was assembled here can be killed")
    generator = random.Random(setting.seed)
    source = make_documents(setting.documents, setting.seed)
    wanted = expected(source)
    path = setting.folder / "source.jsonl"
    command = ingest_command(path, setting.address, setting.folder)
    write_jsonl(path, source)
    outcome = Outcome()
    try:
        while outcome.kills < setting.kills and outcome.is_good:
            drop(setting)
            outcome += Outcome(documents=len(source), runs=1)
            with command.start() as child:
                outcome += Outcome(
                    kills=_kill_node(setting, setting.node, child, generator, setting.kills - outcome.kills)
                )
                child.wait()
            if child.status not in DONE:
                return outcome + Outcome(problem=f"the command ended with {child.status}: {child.messages[-3:]}")
            outcome += Outcome(retries=child.retries)
            outcome += check(setting, wanted, refused_by_id(source), letters_in(setting.folder))
    finally:
        drop(setting)
    return outcome


def _kill_node(setting: Setting, node: Running, child: Child, generator: random.Random, most: int) -> int:
    """Kill and restart the node each time that a further random part of the documents is done; return how often."""
    for number in range(most):
        done = (number + generator.random()) / most * 0.8 * setting.documents
        if not child.wait_until(lambda done=done: child.confirmed > done):
            return number
        node.kill()
        child.wait(generator.uniform(0.0, 3.0))
        node.start()
        setting.say(f"{number + 1} restarts")
    return most
