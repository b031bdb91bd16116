"""What benchmarks share: a figure is a number, or a median with its range; some should be above or below an aim."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["missed", "plain_environment", "report", "spread", "verdict"]

Aims = Mapping[str, tuple[str, float]]
"""By the name of a figure, "<" or ">=" and what it should be."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def missed(figures: Mapping[str, Any], aims: Aims) -> list[str]:
    """The figures that are not as they should be."""
    bad = []
    for name, (sign, aim) in aims.items():
        value = figures[name]["median"] if isinstance(figures[name], dict) else figures[name]
        if not (value < aim if sign == "<" else value >= aim):
            bad.append(f"{name} is {value:.3f}, should be {sign} {aim}")
    return bad


def report(figures: Mapping[str, Any], aims: Aims) -> int:
    """Print figures, as JSON with --json, and what was missed; the exit status."""
    if "--json" in sys.argv:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            aim = "  (should be {} {})".format(*aims[name]) if name in aims else ""
            print(f"{name:28} {_shown(value)}{aim}")
    return verdict(figures, aims)


def verdict(figures: Mapping[str, Any], aims: Aims) -> int:
    """Print what was missed; the exit status."""
    bad = missed(figures, aims)
    for line in bad:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bad else 0


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:,.3f} [{value['min']:,.3f}, {value['max']:,.3f}]"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def plain_environment() -> dict[str, str]:
    """The environment of a user's process: Python may keep the byte code it compiles, as it does unless told otherwise."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
