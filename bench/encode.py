"""Compare the speed of this engine with sentence-transformers on the same texts, in one run and in turns.

    python -m bench.encode [WORK ...] [--rounds N] [--texts KIND] [--only NAME ...] [--device DEVICE] [--json] [--save]

Each contender runs in a process of its own. Every round has new texts, and the order changes from round to round. A
contender whose output differs from the baseline's by more than float noise (or the parity of its bits) is not
counted: its row says why, and the exit status is 1.

``--texts`` uses another kind of text than the work's own, with about as many words, see ``bench.texts``. ``--only``
selects contenders whose names contain one of the words; sentence-transformers always takes part. ``--device cuda``
times the works of transformers on a GPU. ``--save`` stores the rows in ``bench/results/`` and draws a table and a
plot of all saved rows, those of a GPU separately.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import texts
from bench.checkpoints import FORMS, MAKERS
from bench.contenders import THEIRS, Contender, contenders
from bench.figures import plain_environment, spread, verdict
from bench.machine import cost_of_tokens, limit, token_lengths
from bench.process import Process
from bench.works import WORKS, Work, inputs_of, on_card, with_texts

WARM_UP = 900
"""The number of the round whose texts warm up models and find their batch size; it is not measured."""
PARITY = 1e-5
COSINES = {16: (0.998, 0.995), 8: (0.995, 0.98)}
"""Minimum mean and worst cosine to the baseline that count as the same work, by bits.

bfloat16 of random SPLADE weights has 0.9988.
"""


class OtherWorkError(RuntimeError):
    """A contender's output differs so much from the baseline's that its times are those of other work."""


@dataclass(frozen=True, slots=True)
class Run:
    """How works are measured: ``rounds`` on a device, by contenders whose names contain a word of ``only``."""

    rounds: int = 5
    device: str = "cpu"
    only: Sequence[str] = ()


def check_equal(contender: Contender, wanted: Any, measured: Any) -> float:
    """Return the largest difference to the baseline's output; raise OtherWorkError if it is too large."""
    if measured is None:
        return 0.0
    if wanted.shape != measured.shape:
        raise OtherWorkError(f"expected output of shape {wanted.shape}, got {measured.shape}")
    apart = float(np.abs(wanted - measured).max())
    if contender.bits == 32:
        if apart > PARITY:
            raise OtherWorkError(f"output differs by {apart:.1e}; the limit is {PARITY}")
        return apart
    # Scores are one row, whose direction represents their correlation.
    rows = np.atleast_2d(wanted), np.atleast_2d(measured)
    lengths = np.linalg.norm(rows[0], axis=1) * np.linalg.norm(rows[1], axis=1)
    cosines = np.einsum("nd,nd->n", *rows) / np.maximum(lengths, 1e-12)
    mean, worst = COSINES[contender.bits]
    if cosines.mean() < mean or cosines.min() < worst:
        raise OtherWorkError(
            f"cosine {cosines.mean():.4f}, worst {cosines.min():.4f}: too low for {contender.bits} bits"
        )
    return apart


def taking_part(name: str, run: Run) -> list[Contender]:
    """Return the installed and selected contenders of a work; raise ImportError if the baseline is not installed."""
    those = [
        contender
        for contender in contenders(run.device)
        if name in contender.works
        and (not run.only or contender.name == THEIRS or any(word in contender.name for word in run.only))
    ]
    for contender in those:
        if contender.missing:
            print(f"without {contender.name}: {', '.join(contender.missing)} is not installed", file=sys.stderr)
            if contender.name == THEIRS:
                raise ImportError(f"the comparison needs {', '.join(contender.missing)}: run `make bench`")
    return [contender for contender in those if not contender.missing]


def in_turns(names: Sequence[str], turn: int) -> list[str]:
    """Return the names, rotated so that another one is first in each turn."""
    shift = turn % len(names)
    return [*names[shift:], *names[:shift]]


def measure(name: str, work: Work, run: Run, root: Path) -> dict[str, Any]:
    """Measure one row: by contender, the seconds of each round and other observations."""
    folder = MAKERS[work.checkpoint](root)
    those = {contender.name: contender for contender in taking_part(name, run)}
    folders = {each: FORMS[contender.form](folder, root) for each, contender in those.items()}
    if work.order == "start":
        return row(work, {}, start_times(work, those, folders, run.rounds), [])
    rows: dict[str, list[dict[str, Any]]] = {each: [] for each in those}
    not_counted: dict[str, str] = {}
    limits: list[float] = []
    with ExitStack() as stack:
        live = {
            each: stack.enter_context(closing(Process(contender, work.kind, work.method, folders[each])))
            for each, contender in those.items()
        }
        sizes = warmed_up(work, live)
        for number in range(run.rounds):
            inputs = inputs_of(work, number)
            measured = {each: live[each].run(work.order, inputs) for each in in_turns(list(live), number)}
            wanted = measured[THEIRS]["output"]
            for each, answer in measured.items():
                try:
                    answer["apart"] = check_equal(those[each], wanted, answer.pop("output"))
                except OtherWorkError as error:
                    not_counted[each] = str(error)
                    live.pop(each).close()
                    del rows[each]
                else:
                    rows[each].append(answer)
            limits.append(limit(run.device))
    flops = [cost_of_tokens(folder, token_lengths(folder, inputs_of(work, number))) for number in range(run.rounds)]
    shares = [each / gflops for each, gflops in zip(flops, limits, strict=True)]
    return row(work, sizes, rows, shares if work.order == "together" and all(flops) else []) | {
        "not_counted": not_counted
    }


def warmed_up(work: Work, live: Mapping[str, Process]) -> dict[str, int]:
    """Return the batch sizes chosen by contenders that look for the fastest; all have run then."""
    sizes = {}
    warm = inputs_of(work, WARM_UP)
    for each, process in live.items():
        process.run("singly", warm[:3] if work.order == "singly" else [_first(work, warm)])
        if process.contender.sizes:
            sizes[each] = process.run("tune", warm[: _tuning(process.contender)])
        elif work.order == "together":
            process.run("together", warm[:100])
    return sizes


def _tuning(contender: Contender) -> int:
    """Return the number of texts to try batch sizes on: several batches of the largest size."""
    return max(100, 4 * max(contender.sizes)) if contender.device != "cpu" else 100


def _first(work: Work, warm: Sequence[Any]) -> list[Any]:
    """Return the input of the first call: short texts if growth is measured.

    Memory that the model keeps after that call does not count as growth.
    """
    return texts.texts("query", 3, WARM_UP) if work.order == "growth" else list(warm[:3])


def start_times(work: Work, those: Mapping[str, Contender], folders: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    """Return the seconds of fresh processes from start to first vector, with the files in the file cache."""
    rows: dict[str, list[dict[str, Any]]] = {each: [] for each in those}
    for number in range(-1, rounds):
        for each in in_turns(list(those), max(number, 0)):
            contender = those[each]
            (text,) = inputs_of(work, max(number, 0))
            code = (
                f"from {contender.engine} import {work.kind}; "
                f"{work.kind}({str(folders[each])!r}, **{dict(contender.load)!r}).{work.method}([{text!r}])"
            )
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=plain_environment(), capture_output=True)
            if number >= 0:  # the first process fills the caches
                rows[each].append({"seconds": time.perf_counter() - began})
    return rows


def row(
    work: Work, sizes: Mapping[str, int], rows: Mapping[str, list[dict[str, Any]]], shares: Sequence[float]
) -> dict[str, Any]:
    """Return the figures of each contender: medians with ranges, and ratios within each round."""
    key = "growth_mb" if work.order == "growth" else "seconds"
    base = [answer[key] for answer in rows[THEIRS]]
    figures: dict[str, Any] = {}
    for name, answers in rows.items():
        values = [answer[key] for answer in answers]
        figures[name] = {
            key: spread(values),
            "ratio": spread([theirs / max(value, 1e-9) for theirs, value in zip(base, values, strict=True)]),
        }
        if "peak_mb" in answers[0]:
            figures[name] |= {
                "peak_mb": max(answer["peak_mb"] for answer in answers),
                "largest_difference": max(answer["apart"] for answer in answers),
            }
        if shares:
            figures[name]["share_of_limit"] = spread(
                [share / value for share, value in zip(shares, values, strict=True)]
            )
        if name in sizes:
            figures[name]["batch_size"] = sizes[name]
    return {"title": work.title, "texts": work.texts, "count": work.count, "rounds": len(base), "contenders": figures}


def _value(figures: Mapping[str, Any]) -> str:
    if "growth_mb" in figures:
        return f"{figures['growth_mb']['median']:8.0f} MB"
    return f"{figures['seconds']['median'] * 1000:8.2f} ms"


def shown(name: str, work: Work, measured: Mapping[str, Any]) -> list[str]:
    """Return a row as printed lines."""
    lines = [f"{name}: {work.title} ({measured['count']} x {measured['texts']}, {measured['rounds']} rounds)"]
    for contender, figures in measured["contenders"].items():
        ratio = figures["ratio"]
        floor = f", floor {work.floors[contender]:.3g}" if contender in work.floors else ""
        most = f" (at most {work.most[contender]:g})" if contender in work.most else ""
        value = _value(figures)
        extra = f"  {figures['share_of_limit']['median']:4.0%} of the limit" if "share_of_limit" in figures else ""
        extra += f"  peak {figures['peak_mb']:.0f} MB" if "peak_mb" in figures else ""
        extra += f"  batch size {figures['batch_size']}" if "batch_size" in figures else ""
        ratios = f"{ratio['median']:6.2f} x [{ratio['min']:.2f}, {ratio['max']:.2f}{floor}]"
        lines.append(f"  {contender:40}{value}  {ratios}{most}{extra}")
    lines += [f"  {contender:40}not counted: {reason}" for contender, reason in measured.get("not_counted", {}).items()]
    return lines


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.encode", description="Times against sentence-transformers.")
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", choices=("mixed", *texts.KINDS))
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    available = works_on(arguments.device)
    unknown = sorted(set(arguments.works) - set(available))
    if unknown:
        parser.error(f"unknown work {', '.join(unknown)} on {arguments.device}; expected one of {', '.join(available)}")
    return arguments


def works_on(device: str) -> dict[str, Work]:
    """Return, by name, the works that the baseline takes part in on a device."""
    first = contenders(device)[0]
    return {name: work if device == "cpu" else on_card(work) for name, work in WORKS.items() if name in first.works}


def main() -> int:
    """Measure the requested works, or all."""
    arguments = parse_arguments()
    run = Run(arguments.rounds, arguments.device, arguments.only)
    available = works_on(run.device)
    figures: dict[str, Any] = {}
    targets: dict[str, tuple[str, float]] = {}
    not_counted: list[str] = []
    with TemporaryDirectory() as root:
        for name in arguments.works or available:
            work = available[name] if arguments.texts is None else with_texts(available[name], arguments.texts)
            label = name if arguments.texts is None else f"{name}-{arguments.texts}"
            try:
                measured = measure(name, work, run, Path(root))
            except ImportError as error:
                print(error, file=sys.stderr)
                return 1
            if not arguments.json:
                print("\n".join(shown(label, work, measured)), flush=True)
            if arguments.save:
                from bench.encode_results import save

                save(label, measured, run.device)
            figures |= figures_of(label, measured)
            targets |= targets_of(label, work, measured)
            not_counted += [f"{label}: {each}: {why}" for each, why in measured.get("not_counted", {}).items()]
    if arguments.json:
        print(json.dumps(figures))
    for line in not_counted:
        print(f"not counted: {line}", file=sys.stderr)
    return verdict(figures, targets) or int(bool(not_counted))


def figures_of(label: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ratios of a row by contender, and its seconds or megabytes under names that end in the unit."""
    figures: dict[str, Any] = {}
    for contender, values in measured["contenders"].items():
        key, unit = ("growth_mb", "MB") if "growth_mb" in values else ("seconds", "s")
        figures |= {f"{label}: {contender}": values["ratio"], f"{label}: {contender}, {unit}": values[key]}
    return figures


def targets_of(label: str, work: Work, measured: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Return the targets of the contenders that took part, by name of the figure."""
    unit = "MB" if work.order == "growth" else "s"
    here = measured["contenders"]
    return {f"{label}: {name}": (">=", floor) for name, floor in work.floors.items() if name in here} | {
        f"{label}: {name}, {unit}": ("<", most) for name, most in work.most.items() if name in here
    }


if __name__ == "__main__":
    raise SystemExit(main())
