"""The ingesting command as a process of its own, which can be watched, killed and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from integration.faults.material import NAME

__all__ = ["DONE", "FAILURE", "Child", "Command", "ingest_command", "letters_in", "state_in"]

DONE = {0, 1}
"""The exit statuses of a complete ingest: without and with refused documents."""
FAILURE = 3
LIMIT_S = 900.0
"""Seconds after which a command is given up."""
POLL_S = 0.02
PROGRAM = Path(sys.executable).with_name("st-connectors")


@dataclass(frozen=True, slots=True)
class Command:
    """A call of the command line, in an environment with further variables; ``folder`` is for its output."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str] | None = None

    def start(self) -> Child:
        """Start the command."""
        return Child([str(PROGRAM), *self.arguments], self.folder, self.environment)

    def run(self) -> Child:
        """Run the command to its end."""
        with self.start() as child:
            child.wait()
        return child


def ingest_command(
    source: Path,
    address: str,
    folder: Path,
    options: Sequence[str] = (),
    *,
    verb: str = "ingest",
    environment: Mapping[str, str] | None = None,
) -> Command:
    """Return an ingest of a file into a collection, which it creates, with further options; or a sync."""
    target = ["--in", address, "--collection", NAME, "--create", "--filterable", "year:int"]
    models = ["--dense", "builtin:dense", "--sparse", "builtin:sparse"]
    shown = ["--batch", "64", "--progress", "json", "--json"]
    return Command([verb, str(source), *target, *models, *shown, *options], folder, environment)


class Child:
    """A running command; it is killed at the end of a ``with`` block."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start the process; its output goes to files in a folder."""
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        self.began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **(environment or {})}
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def process(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status; None while the process runs."""
        return self._process.poll()

    @property
    def age(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self.began

    def wait(self, seconds: float = LIMIT_S) -> bool:
        """Wait for the end of the process for some seconds, and return whether it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_running

    def wait_until(self, condition: Callable[[], object]) -> bool:
        """Wait until a condition is true, and return True; return False if the process has ended before."""
        while self.is_running and self.age < LIMIT_S:
            if condition():
                return True
            time.sleep(POLL_S)
        return False

    def kill(self) -> bool:
        """Kill the process, and return whether it was still running."""
        if not self.is_running:
            return False
        self._process.kill()
        self._process.wait()
        return True

    def pause(self) -> None:
        """Stop the process until ``resume``."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process after ``pause``."""
        self._process.send_signal(signal.SIGCONT)

    @property
    def confirmed(self) -> int:
        """The number of documents that are done by the last line of progress, confirmed or refused."""
        values = [json.loads(line) for line in self._lines() if line.startswith("{") and line.endswith("}")]
        return int(values[-1]["read"]) if values else 0

    @property
    def messages(self) -> list[str]:
        """What the command printed to standard error besides its progress."""
        return [line for line in self._lines() if not line.startswith("{")]

    @property
    def report(self) -> Mapping[str, Any]:
        """The report of the ingest; empty if it printed none."""
        lines = self._out.read_text(encoding="utf-8").splitlines()
        report: Mapping[str, Any] = json.loads(lines[-1]) if lines and self.status in {*DONE, FAILURE} else {}
        return report

    @property
    def retries(self) -> int:
        """The number of requests that the command says it repeated."""
        return int(self.report.get("retries", 0))

    def _lines(self) -> list[str]:
        return self._err.read_text(encoding="utf-8", errors="replace").splitlines()


def state_in(folder: Path) -> Path | None:
    """Return the state that an ingest of a file in this folder has written; None if there is none."""
    return next(iter((folder / ".st-connectors").glob("*.state.json")), None)


def letters_in(folder: Path) -> Path:
    """Return the dead letters that an ingest of a file in this folder has written."""
    return next(iter((folder / ".st-connectors").glob("*.refused.jsonl")), folder / "none")
