"""The scenarios by name: what they do, on which engines, and how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from integration.faults.clock import jump
from integration.faults.disk import break_disk
from integration.faults.kill import kill, kill_migrate, kill_sync
from integration.faults.node import restart_node
from integration.faults.outcome import Outcome
from integration.faults.places import Setting, SkippedError
from integration.faults.poison import poison
from integration.faults.reader import read_throughout
from integration.faults.two import run_two
from integration.faults.wire import run_through_faults
from integration.faults.writers import write_at_once

__all__ = ["SCENARIOS", "Scenario", "SkippedError"]

SERVERS = ("elasticsearch-9", "opensearch")
DURABLE = ("qdrant-edge", *SERVERS)
ALL = ("memory", "milvus-lite", *DURABLE)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: what it does, on which engines, with how many documents in each ingest, and how many kills."""

    name: str
    run: Callable[[Setting], Outcome]
    engines: tuple[str, ...]
    documents: int
    kills: int = 0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("kill", kill, DURABLE, documents=4000, kills=25),
        Scenario("kill sync", kill_sync, DURABLE, documents=4000, kills=10),
        Scenario("kill migrate", kill_migrate, DURABLE, documents=4000, kills=10),
        Scenario("node", restart_node, SERVERS, documents=8000, kills=3),
        Scenario("wire", run_through_faults, SERVERS, documents=2000),
        Scenario("poison", poison, DURABLE, documents=4000),
        Scenario("disk", break_disk, DURABLE, documents=4000),
        Scenario("clock", jump, DURABLE, documents=4000, kills=2),
        Scenario("two", run_two, DURABLE, documents=4000),
        Scenario("reader", read_throughout, ALL, documents=2000),
        Scenario("writers", write_at_once, ALL, documents=4000),
    )
}
