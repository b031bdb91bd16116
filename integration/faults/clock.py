"""Let the clock of an ingest jump, and kill it meanwhile."""

from __future__ import annotations

import os

from integration.faults.checking import check
from integration.faults.command import ingest_command, letters_in
from integration.faults.kill import measure, run_killed
from integration.faults.material import expected, make_documents, refused_by_id, write_jsonl
from integration.faults.outcome import Outcome
from integration.faults.places import Setting, drop

__all__ = ["JUMPING", "jump"]

JUMPING = '''"""A wall clock that jumps at each call, for a year forth and back."""

import datetime
import random
import time

REAL, REAL_NS = time.time, time.time_ns
DAY = 86_400


def jump():
    return random.choice((-365 * DAY, -DAY, -3600, 0, 3600, DAY, 365 * DAY))


class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(REAL() + jump(), tz)


time.time = lambda: REAL() + jump()
time.time_ns = lambda: REAL_NS() + jump() * 10**9
datetime.datetime = Jumping
'''


def jump(setting: Setting) -> Outcome:
    """Ingest while the wall clock jumps, with kills, so that a state is read by a clock that is behind its own."""
    clock = setting.folder / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(JUMPING, encoding="utf-8")
    source = make_documents(setting.documents, setting.seed)
    path = setting.folder / "source.jsonl"
    write_jsonl(path, source)
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, (str(clock), os.environ.get("PYTHONPATH"))))}
    command = ingest_command(path, setting.address, setting.folder, environment=environment)
    drop(setting)
    try:
        moments = measure(command, setting.seed)
        drop(setting)
        outcome = run_killed(command, moments, setting.kills) + Outcome(2 * len(source), runs=1, faults=1)
        return outcome + check(setting, expected(source), refused_by_id(source), letters_in(setting.folder))
    finally:
        drop(setting)
