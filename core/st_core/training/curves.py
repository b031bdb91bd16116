"""The curves of a training, as an SVG and as a line of blocks for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

__all__ = ["Curve", "curves_of", "drawing", "sparkline", "write_log"]

Curve: TypeAlias = Sequence[tuple[int, float]]
"""Steps and values."""

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT, LEFT, GAP = 480, 90, 60, 46
"""Pixels of one curve, of the margin for its values, and of the space between two."""

_LEFT_OUT = ("runtime", "per_second", "epoch", "total_flos", "step", "time", "grad_norm", "train_loss")


def curves_of(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return the curve of each value of a log, by name; values that say nothing of the model are left out."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in history:
        for name, value in line.items():
            is_number = isinstance(value, (int, float)) and math.isfinite(value)
            if is_number and not name.endswith(_LEFT_OUT):
                curves.setdefault(name, []).append((int(line.get("step", 0)), float(value)))
    return curves


def write_log(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a log to ``log.jsonl`` and its curves to ``curves.svg`` in a folder, which is created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curves.svg").write_text(drawing(curves_of(history)), encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")


def sparkline(curve: Curve, width: int = 40) -> str:
    """Return a curve as blocks of eight heights, from its lowest to its highest value."""
    if not curve:
        return ""
    count = min(width, len(curve))
    values = [curve[place * (len(curve) - 1) // max(1, count - 1)][1] for place in range(count)]
    low, high = min(values), max(values)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def drawing(curves: Mapping[str, Curve]) -> str:
    """Return an SVG with each curve below the other."""
    parts = [part for place, (name, curve) in enumerate(curves.items()) for part in _shapes(name, curve, place)]
    height = max(1, len(curves)) * (HEIGHT + GAP) + 10
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{height}" {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def _shapes(name: str, curve: Curve, place: int) -> list[str]:
    top = place * (HEIGHT + GAP) + 30
    low, high = min(value for _, value in curve), max(value for _, value in curve)
    last = max(1, curve[-1][0])
    height = HEIGHT / (high - low) if high > low else 0.0
    points = " ".join(
        f"{LEFT + WIDTH * step / last:.1f},{top + HEIGHT - (value - low) * height:.1f}" for step, value in curve
    )
    return [
        f'<text x="{LEFT}" y="{top - 8}">{escape(name)}: {curve[-1][1]:.4g} at step {curve[-1][0]}</text>',
        f'<text x="{LEFT - 6}" y="{top + 8}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">{low:.3g}</text>',
        f'<polyline points="{points}" fill="none" stroke="#2563eb"/>',
    ]
