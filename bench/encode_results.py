"""Store the rows of ``bench.encode`` in ``bench/results``, and draw the table and the plot of all stored rows.

The files are ``encode.json``, ``.md`` and ``.svg`` for the CPU, and ``encode-GPU`` for each GPU.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import card, describe

FOLDER = Path(__file__).parent / "results"


def save(name: str, row: Mapping[str, Any], device: str = "cpu") -> None:
    """Replace the stored row of the same name; contenders that were not measured keep their figures or the reason."""
    stem = stem_of(device)
    path = FOLDER / f"{stem}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stamp = {"date": datetime.now(UTC).date().isoformat(), "machine": describe(device)}
    stored[name] = {**row, **_joined(stored.get(name, {}), row)} | stamp
    stored = dict(sorted(stored.items()))
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (FOLDER / f"{stem}.md").write_text("\n".join(table(stored, device)) + "\n", encoding="utf-8")
    plot(stored, FOLDER / f"{stem}.svg")


def _joined(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Merge stored and new contenders: the newer of figures and the reason for not being counted."""
    keys = ("contenders", "not_counted")
    seen = {name for key in keys for name in row.get(key, {})}
    return {
        key: {name: value for name, value in before.get(key, {}).items() if name not in seen} | row.get(key, {})
        for key in keys
    }


def stem_of(device: str) -> str:
    """Return the base name of a device's files, which contains the name of a GPU."""
    return "encode" if device == "cpu" else "-".join(["encode", *re.findall(r"[a-z0-9]+", card(device).lower())])


def table(stored: Mapping[str, Any], device: str = "cpu") -> Iterator[str]:
    """Return all rows as a Markdown page."""
    where, command = (f" on {card(device)}", " --device cuda") if device != "cpu" else ("", "")
    yield f"# Times against sentence-transformers{where}"
    yield ""
    written_by = f"Written by `python -m bench.encode{command} --save`"
    yield f"{written_by}; that module and `bench/texts.py` describe the measurement."
    yield "Figures are medians with the range of all rounds; ratios are taken within a round. The limit is the fastest"
    yield "large float32 matrix product of torch."
    for name, row in stored.items():
        yield ""
        yield f"## {name}: {row['title']}"
        yield ""
        yield f"{row['count']} inputs ({row['texts']}) in each of {row['rounds']} rounds, {row['date']}."
        yield ""
        yield "| | median | range | ratio | range | of the limit | peak MB | largest difference |"
        yield "|---|---|---|---|---|---|---|---|"
        yield from (_line(contender, figures) for contender, figures in row["contenders"].items())
        for contender, reason in row.get("not_counted", {}).items():
            yield ""
            yield f"Not counted: {contender}, whose {reason}."
    yield ""
    yield "## Machines"
    yield ""
    machines = {json.dumps(row["machine"], sort_keys=True): [] for row in stored.values()}
    for name, row in stored.items():
        machines[json.dumps(row["machine"], sort_keys=True)].append(name)
    for machine, names in machines.items():
        yield f"- {', '.join(names)}: " + ", ".join(f"{key} {value}" for key, value in json.loads(machine).items())


def _line(contender: str, figures: Mapping[str, Any]) -> str:
    scale, unit, key = (1, "MB", "growth_mb") if "growth_mb" in figures else (1000, "ms", "seconds")
    value, ratio, share = figures[key], figures["ratio"], figures.get("share_of_limit")
    size = f" (batch size {figures['batch_size']})" if "batch_size" in figures else ""
    cells = [
        contender + size,
        f"{value['median'] * scale:,.4g} {unit}",
        f"{value['min'] * scale:,.4g} to {value['max'] * scale:,.4g}",
        f"{ratio['median']:.2f}",
        f"{ratio['min']:.2f} to {ratio['max']:.2f}",
        "" if share is None else f"{share['median']:.0%}",
        f"{figures['peak_mb']:.0f}" if "peak_mb" in figures else "",
        f"{figures['largest_difference']:.0e}" if "largest_difference" in figures else "",
    ]
    return f"| {' | '.join(cells)} |"


def plot(stored: Mapping[str, Any], path: Path) -> None:
    """Draw the ratios of all rows with their ranges as SVG; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "encode"  # equal figures produce equal files
    from matplotlib import pyplot as plt

    bars = [
        (f"{name}: {contender}", figures["ratio"])
        for name, row in stored.items()
        for contender, figures in row["contenders"].items()
        if contender != "sentence-transformers"
    ][::-1]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.3 * len(bars)))
    middle = [ratio["median"] for _, ratio in bars]
    below = [ratio["median"] - ratio["min"] for _, ratio in bars]
    above = [ratio["max"] - ratio["median"] for _, ratio in bars]
    axes.barh([label for label, _ in bars], middle, xerr=[below, above], color="#4477aa", ecolor="#222222")
    axes.axvline(1, color="#cc3311")
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as sentence-transformers with its defaults (for memory: times as little)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
