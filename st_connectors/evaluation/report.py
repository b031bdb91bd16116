"""An evaluation as a table, as bars for the terminal, and as an SVG plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from st_connectors.evaluation.evaluating import Evaluation, Figure

__all__ = ["bars", "plot", "table", "worst_lines"]

BAR = 40
"""Characters of a bar of the value 1."""

COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2")
STYLE = 'font-family="sans-serif" font-size="12"'
ROW, GAP, LEFT, WIDTH = 18, 14, 190, 420
"""Pixels of the plot: of a bar, between measures, of the names, and of the value 1."""


def table(evaluation: Evaluation) -> list[str]:
    """Return the lines of a table: a row for each run, a column for each measure with its interval.

    A star marks a difference from the first run with p < 0.05.
    """
    judged = evaluation.judged
    measures = list(evaluation.results[0].measures)
    has_times = any(each.seconds for each in evaluation.results)
    head = ["run", *measures, *(("p50", "p99") if has_times else ())]
    rows = [head] + [
        [each.name, *(_value(each.measures[name]) for name in measures), *_times(each.seconds, has_times=has_times)]
        for each in evaluation.results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counted = f"{len(judged.queries)} queries, {judged.pairs} judgements ({judged.origin})"
    explained = "value [95 % interval]"
    if len(evaluation.results) > 1:
        explained += f"; * differs from {evaluation.results[0].name} with p < 0.05"
    return [counted, *lines, explained, *(f"note: {note}" for note in evaluation.notes)]


def _value(figure: Figure) -> str:
    mark = "*" if figure.is_different else ""
    return f"{figure.value:.3f}{mark} [{_number(figure.low)}, {_number(figure.high)}]"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _times(seconds: Mapping[str, Figure], *, has_times: bool) -> list[str]:
    if not has_times:
        return []
    return [f"{seconds[name].value * 1000:.1f} ms" if name in seconds else "-" for name in ("p50", "p99")]


def bars(evaluation: Evaluation, measure: str) -> list[str]:
    """Return a bar of each run for the terminal, with the interval of the measure as a lighter part.

    The difference from the first run and its interval follow.
    """
    width = max(len(each.name) for each in evaluation.results)
    lines = []
    for each in evaluation.results:
        figure = each.measures[measure]
        low, high = (
            round(BAR * bound) if math.isfinite(bound) else round(BAR * figure.value)
            for bound in (figure.low, figure.high)
        )
        bar = f"{'█' * low}{'▒' * (high - low)}{' ' * (BAR - high)}"
        lines.append(f"{each.name.ljust(width)}  {bar}  {figure.value:.3f}{_difference(figure)}")
    return lines


def _difference(figure: Figure) -> str:
    difference = figure.difference
    if difference is None:
        return ""
    return f"  {difference.value:+.3f} [{_signed(difference.low)}, {_signed(difference.high)}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else "-"


def plot(evaluation: Evaluation) -> str:
    """Return an SVG with a bar of each run for each measure, and its interval as a line."""
    parts = list(_shapes(evaluation))
    measures, runs = len(evaluation.results[0].measures), len(evaluation.results)
    height = measures * (runs * ROW + GAP) + 60
    title = f"{len(evaluation.judged.queries)} queries, {evaluation.judged.origin}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}" height="{height}" {STYLE}>',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="10" y="20">{escape(title)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _shapes(evaluation: Evaluation) -> Iterator[str]:
    top = 40
    for name in evaluation.results[0].measures:
        for place, each in enumerate(evaluation.results):
            figure, middle = each.measures[name], top + ROW // 2
            colour = COLOURS[place % len(COLOURS)]
            label = f"{name} {each.name}" if place == 0 else each.name
            yield f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>'
            yield (
                f'<rect x="{LEFT}" y="{top + 2}" width="{WIDTH * figure.value:.1f}" height="{ROW - 4}" '
                f'fill="{colour}" fill-opacity="0.6"/>'
            )
            if math.isfinite(figure.low):
                yield (
                    f'<line x1="{LEFT + WIDTH * figure.low:.1f}" x2="{LEFT + WIDTH * figure.high:.1f}" '
                    f'y1="{middle}" y2="{middle}" stroke="black"/>'
                )
            yield f'<text x="{LEFT + WIDTH + 8}" y="{middle + 4}">{figure.value:.3f}</text>'
            top += ROW
        top += GAP


def worst_lines(queries: Sequence[Mapping[str, Any]], measure: str) -> list[str]:
    """Return lines on each query of :meth:`Worst.to_json`: its value, the first hits, and what was lost where."""
    lines: list[str] = []
    for each in queries:
        lines.append(f"{measure} {each['value']:.3f}  {each['id']}: {each['query']}")
        lines += [
            f"  found {rank}. {key} (grade {grade:g}): {_short(text)}"
            for rank, (key, text, grade) in enumerate(each["found"], 1)
        ]
        lines += [
            f"  wanted {lost['id']} (grade {lost['grade']:g}): {_short(lost['text'])}; {lost['reason']}"
            for lost in each["wanted"]
        ]
    return lines


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
