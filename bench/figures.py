"""Figures shared by benchmarks: a number, or a median with its range; some have a target."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["missed", "plain_environment", "report", "spread", "verdict"]

Targets = Mapping[str, tuple[str, float]]
"""Targets by the name of a figure: "<" or ">=" and a limit."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def missed(figures: Mapping[str, Any], targets: Targets) -> list[str]:
    """Describe the figures that miss their targets."""
    bad = []
    for name, (sign, target) in targets.items():
        value = figures[name]["median"] if isinstance(figures[name], dict) else figures[name]
        if not (value < target if sign == "<" else value >= target):
            bad.append(f"{name} is {value:.3f}, target {sign} {target}")
    return bad


def report(figures: Mapping[str, Any], targets: Targets) -> int:
    """Print figures, as JSON with ``--json``, and missed targets; return the exit status."""
    if "--json" in sys.argv:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            target = "  (target {} {})".format(*targets[name]) if name in targets else ""
            print(f"{name:28} {_shown(value)}{target}")
    return verdict(figures, targets)


def verdict(figures: Mapping[str, Any], targets: Targets) -> int:
    """Print missed targets; return the exit status."""
    bad = missed(figures, targets)
    for line in bad:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bad else 0


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:,.3f} [{value['min']:,.3f}, {value['max']:,.3f}]"
    if isinstance(value, str):
        return value
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def plain_environment() -> dict[str, str]:
    """Return the environment of a user's process, in which Python writes bytecode."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
