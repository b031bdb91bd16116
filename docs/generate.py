"""Write the generated parts of the README and of the pages: `make readme`.

Each part stands between `<!-- NAME:begin ... -->` and `<!-- NAME:end -->`. A test compares every part with
what this script writes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROGRAM = Path(sys.executable).with_name("st-connectors")
EMPTY = "–"  # noqa: RUF001

GROUPS = {
    "shape": "schemas, names and dimensions",
    "life": "create, open, drop",
    "writes": "upsert, delete, batches, refused records",
    "border": "invalid arguments, records and names",
    "fidelity": "ids and payloads come back unchanged",
    "dense": "dense scores and order",
    "sparse": "sparse scores and order",
    "text": "BM25 search",
    "filtering": "the truth table of filters, and random filters",
    "fusing": "hybrid search",
    "scan": "reading a whole collection",
    "threads": "concurrent readers and writers",
    "machine": "random sequences of operations",
}
"""What each group of the conformance suite is about."""

FAULTS = {
    "kill": "`kill -9` of the ingesting command at random moments, then the same command again, until it is done",
    "kill sync": "the same with a sync of new, changed and missing documents",
    "kill migrate": "the same with a migration",
    "node": "`kill -9` of the server in the middle, three times",
    "wire": "refused connections, resets in mid-answer, black holes, delays, 429 storms, 50x, truncated JSON",
    "poison": "1 % bad documents: ids, types, weights, dimensions, encodings, NaN, too long, a line of 200 MB",
    "disk": "a full disk under the state or the dead letters, and read-only folders",
    "clock": "a wall clock that jumps, with kills",
    "two": "two ingests of one source at once: the second is refused",
    "reader": "all documents are replaced while they are searched and read",
    "writers": "ten writers with equal ids in flight: the last document wins",
}
"""What breaks in each scenario of `make faults`."""

ROWS = {
    "dense": "dense documents, MiniLM",
    "splade": "SPLADE documents",
    "pairs": "cross-encoder, 100 pairs",
    "query": "one short dense query",
    "start": "process start to first vector, MiniLM",
}
"""Rows of the tables of speed, by their names in `bench/results/encode.json`."""

CONTENDERS = {
    "torch": "st_core torch",
    "OpenVINO": "st_core openvino float32",
    "OpenVINO bfloat16": "st_core openvino bfloat16",
    "OpenVINO int8": "st_core openvino int8",
    "ONNX Runtime": "st_core onnx float32",
    "ONNX Runtime int8": "st_core onnx int8",
}
OTHERS = {
    "at its best batch size": "sentence-transformers, best size",
    "on OpenVINO, bfloat16": "sentence-transformers openvino",
    "on OpenVINO, float32": "sentence-transformers openvino float32",
    "fastembed": "fastembed, best size",
}


def main() -> None:
    """Write every generated part."""
    for path, parts in PARTS.items():
        file = ROOT / path
        text = file.read_text(encoding="utf-8")
        for name, write in parts.items():
            text = replaced(text, name, write())
        file.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, part: str) -> str:
    """Return the text of a page with another part between the markers of ``name``."""
    new, count = re.subn(
        rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)",
        lambda match: f"{match[1]}{part}{match[2]}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"expected the markers of {name!r} once, got {count}")
    return new


def stores() -> str:
    """Return the table of what each store can do."""
    return subprocess.run([PROGRAM, "stores", "--markdown"], capture_output=True, text=True, check=True).stdout


def conformance() -> str:
    """Return a row for each engine: its version, the client's, and how many tests passed."""
    lines = ["| engine | address | client | passed | skipped | known gaps |", "|---" * 6 + "|"]
    for row in recorded():
        name = row["engine"].rstrip("0123456789").strip()
        engine = f"{name} {row['version']}" if row["version"] else row["engine"]
        counts = [sum(each) for each in zip(*row["groups"].values(), strict=True)] if row["groups"] else []
        cells = " | ".join(map(str, counts)) if counts else f"not verified | {EMPTY} | {EMPTY}"
        lines.append(f"| {engine} | `{row['scheme']}:` | {row['client'] or EMPTY} | {cells} |")
    return "\n".join(lines) + "\n"


def groups() -> str:
    """Return a row for each group of tests: how many it has, and how many each engine skipped."""
    run = [row for row in recorded() if row["groups"]]
    lines = ["| group | about | tests | skipped |", "|---" * 4 + "|"]
    for group, about in GROUPS.items():
        total = sum(run[0]["groups"][group])
        fewer = [f"{row['engine']}: {row['groups'][group][1]}" for row in run if row["groups"][group][1]]
        lines.append(f"| {group} | {about} | {total} | {'; '.join(dict.fromkeys(fewer)) or EMPTY} |")
    return "\n".join(lines) + "\n"


def recorded() -> list[dict[str, Any]]:
    """Return the rows that `make conformance` recorded."""
    rows: list[dict[str, Any]] = json.loads((ROOT / "docs" / "conformance.json").read_text(encoding="utf-8"))
    return rows


def billion() -> str:
    """Return the plan of a billion documents, from recorded figures."""
    return subprocess.run(
        [sys.executable, "-m", "bench.plan"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def faults() -> str:
    """Return a row for each scenario of ingests through faults, with the recorded counts of all engines together."""
    stored = json.loads((ROOT / "bench" / "results" / "faults.json").read_text(encoding="utf-8"))
    counts = ("runs", "kills", "faults", "lost", "doubled")
    lines = [f"| scenario | what breaks | engines | {' | '.join(counts)} |", "|---" * (3 + len(counts)) + "|"]
    for scenario in filter(stored.__contains__, FAULTS):
        rows = stored[scenario]
        cells = [f"{sum(row[name] for row in rows.values()):,}" for name in counts]
        lines.append(f"| {scenario} | {FAULTS[scenario]} | {', '.join(sorted(rows))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def speed(rows: tuple[str, ...], contenders: tuple[str, ...]) -> str:
    """Return how many times as fast as sentence-transformers each contender was, as medians of the recorded rounds."""
    measured = json.loads((ROOT / "bench" / "results" / "encode.json").read_text(encoding="utf-8"))
    labels = CONTENDERS | OTHERS
    lines = [f"| times as fast | {' | '.join(contenders)} |", "|---" * (len(contenders) + 1) + "|"]
    for row in rows:
        figures = measured[row]["contenders"]
        cells = [ratio(row, figures, labels[contender]) for contender in contenders]
        lines.append(f"| {ROWS[row]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ratio(row: str, figures: Mapping[str, Any], contender: str) -> str:
    """Return a contender's median ratio with two significant digits, or a dash where it was not measured."""
    if row in {"query", "start"} and contender == OTHERS["fastembed"]:
        contender = "fastembed"  # one text has no batch size to choose
    if contender not in figures:
        return EMPTY
    median = figures[contender]["ratio"]["median"]
    return f"{median:.0f}" if median >= 9.95 else f"{median:.1f}"


def sizing() -> str:
    """Return what one process of the server needed and did."""
    measured = json.loads((ROOT / "bench" / "results" / "sizing.json").read_text(encoding="utf-8"))
    lines = [
        f"| on {measured['machine']} | memory (MB) | one client | 32 clients | 32 texts |",
        "|---|---|---|---|---|",
    ]
    for name, row in measured["rows"].items():
        cells = [
            f"{row['loaded_mb']:.0f}, {row['busy_mb']:.0f}",
            f"{row['p50_ms']:.1f} ms, {row['one_per_s']:,.0f}/s",
            f"{row['many_per_s']:,.0f}/s, {row['many_p99_ms']:.0f} ms",
            f"{row['texts_per_s']:,.0f}/s",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def transcript() -> str:
    """Return the beginning and the end of what the demo prints."""
    lines = demo().splitlines()
    shown = lines[: lines.index("", lines.index("") + 1) + 1]
    return "\n".join(["```text", *shown, "[two more questions]", "", *lines[-2:], "```"]) + "\n"


def demo() -> str:
    """Return what the demo prints, with the program's name in place of its path."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "100"}
        done = subprocess.run(
            [PROGRAM, "demo"], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
    return re.sub(r" +$", "", done.stdout.replace(str(PROGRAM), PROGRAM.name), flags=re.MULTILINE)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "demo": transcript,
        "speed": lambda: speed(
            ("dense", "splade", "pairs", "query"), ("torch", "OpenVINO", "OpenVINO int8", "fastembed")
        ),
    },
    "docs/ingest.md": {"faults": faults},
    "docs/performance.md": {
        "encode": lambda: speed(tuple(ROWS), tuple(CONTENDERS)),
        "others": lambda: speed(tuple(ROWS), tuple(OTHERS)),
    },
    "docs/scale.md": {"plan": billion},
    "docs/sizing.md": {"sizing": sizing},
    "docs/stores/index.md": {"stores": stores, "conformance": conformance, "groups": groups},
}

if __name__ == "__main__":
    main()
