"""How fast this engine is against sentence-transformers: the same texts, in one run, in turns, each contender in a process of its own.

    python -m bench.encode [WORK ...] [--rounds N] [--texts KIND] [--only NAME ...] [--json] [--save]

Every round has other texts, and who begins changes from round to round. A contender whose output is not the first one's, up to float noise
(or the parity of int8), stops the run. ``--texts`` takes another kind of text than the work's own, see ``bench.texts``. ``--only`` leaves out
the contenders whose names hold none of the words given; sentence-transformers always takes part. ``--save`` puts the rows into
``bench/results/``, where a table and a plot are drawn of all rows saved so far.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import texts
from bench.checkpoints import MAKERS
from bench.contenders import CONTENDERS, THEIRS, Contender, Process
from bench.figures import plain_environment, report, spread
from bench.machine import cost_of_tokens, limit, token_lengths

WARM_UP = 900
"""The number of the texts that models warm up and find their batch size on: of no round."""


@dataclass(frozen=True, slots=True)
class Work:
    """``count`` texts of a kind in each round, or pairs, given to a ``method`` of a class; ``order`` says what is measured.

    ``floors`` are the least ratios to sentence-transformers by contender, ``most`` the most seconds or megabytes.
    """

    title: str
    checkpoint: str
    kind: str
    method: str
    texts: str
    count: int
    order: str = "together"
    floors: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)


TORCH, NUMPY = "st_core torch", "st_core numpy"
OPENVINO, EIGHT_BITS = "st_core openvino float32", "st_core openvino int8"
WORKS = {
    "dense": Work(
        "dense documents, MiniLM",
        "minilm",
        "SentenceTransformer",
        "encode",
        "mixed",
        400,
        floors={TORCH: 1.12, OPENVINO: 1.2, EIGHT_BITS: 2.3},
    ),
    "splade": Work(
        "SPLADE documents",
        "splade",
        "SparseEncoder",
        "encode",
        "mixed",
        64,
        floors={TORCH: 1.8, OPENVINO: 2.0, EIGHT_BITS: 5},
    ),
    "pairs": Work(
        "cross-encoder, 100 pairs",
        "cross-encoder",
        "CrossEncoder",
        "predict",
        "pairs",
        100,
        floors={TORCH: 1.3, OPENVINO: 1.45, EIGHT_BITS: 2.8},
    ),
    "query": Work(
        "one short dense query", "minilm", "SentenceTransformer", "encode", "query", 40, "singly", {TORCH: 1.3}
    ),
    "sparse-query": Work(
        "inference-free sparse query",
        "inference-free",
        "SparseEncoder",
        "encode_query",
        "query",
        100,
        "singly",
        {NUMPY: 50},
    ),
    "sparse-queries": Work(
        "inference-free sparse queries in one call",
        "inference-free",
        "SparseEncoder",
        "encode_query",
        "query",
        1000,
    ),
    "static": Work(
        "static model documents", "static", "SentenceTransformer", "encode", "describe", 2000, floors={NUMPY: 3}
    ),
    "splade-memory": Work(
        "SPLADE peak growth, 32 texts of 512 tokens",
        "splade",
        "SparseEncoder",
        "encode",
        "long",
        32,
        "growth",
        most={TORCH: 600, OPENVINO: 400},
    ),
    "start": Work(
        "start to first vector, MiniLM",
        "minilm",
        "SentenceTransformer",
        "encode",
        "query",
        1,
        "start",
        {TORCH: 1 / 0.85},
        {OPENVINO: 1.0},
    ),
    "start-static": Work(
        "start to first vector, built-in",
        "static",
        "SentenceTransformer",
        "encode",
        "query",
        1,
        "start",
        most={NUMPY: 1.0},
    ),
}
PARITY = 1e-5
INT8_MEAN, INT8_WORST = 0.995, 0.98


def inputs_of(work: Work, number: int) -> list[Any]:
    """What a round is about."""
    if work.texts == "pairs":
        return list(texts.pairs(work.count, number))
    if work.texts == "long":
        return [f"{text} {text}" for text in texts.texts("article", work.count, number)]
    return list(texts.texts(work.texts, work.count, number))


def check_equal(contender: Contender, wanted: Any, found: Any) -> float:
    """The largest difference to the first contender's output; raises RuntimeError where it is too large to call it the same work."""
    if found is None:
        return 0.0
    if wanted.shape != found.shape:
        raise RuntimeError(f"{contender.name}: output of shape {found.shape}, expected {wanted.shape}")
    apart = float(np.abs(wanted - found).max())
    if contender.bits == 32:
        if apart > PARITY:
            raise RuntimeError(
                f"{contender.name}: its output differs by {apart:.1e}, more than {PARITY}: other work is timed"
            )
        return apart
    rows = (
        np.atleast_2d(wanted),
        np.atleast_2d(found),
    )  # scores are one row: their direction stands for their correlation
    lengths = np.linalg.norm(rows[0], axis=1) * np.linalg.norm(rows[1], axis=1)
    cosines = np.einsum("nd,nd->n", *rows) / np.maximum(lengths, 1e-12)
    if cosines.mean() < INT8_MEAN or cosines.min() < INT8_WORST:
        raise RuntimeError(
            f"{contender.name}: cosines of {cosines.mean():.4f}, at worst {cosines.min():.4f}, are too low for int8"
        )
    return apart


def taking_part(name: str, only: Sequence[str] = ()) -> list[Contender]:
    """The contenders of a work that are installed and asked for; raises ImportError where the first is not installed."""
    those = [
        contender
        for contender in CONTENDERS
        if name in contender.works
        and (not only or contender.name == THEIRS or any(word in contender.name for word in only))
    ]
    for contender in those:
        if contender.missing:
            print(f"without {contender.name}: {', '.join(contender.missing)} is not installed", file=sys.stderr)
            if contender.name == THEIRS:
                raise ImportError(f"the comparison needs {', '.join(contender.missing)}: run `make bench`")
    return [contender for contender in those if not contender.missing]


def in_turns(names: Sequence[str], turn: int) -> list[str]:
    """The names, another one first in each turn."""
    shift = turn % len(names)
    return [*names[shift:], *names[:shift]]


def measure(name: str, work: Work, rounds: int, root: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """One row: by contender, the seconds of each round and what else was seen."""
    folder = MAKERS[work.checkpoint](root)
    contenders = {contender.name: contender for contender in taking_part(name, only)}
    if work.order == "start":
        return row(work, {}, start_times(work, contenders, folder, rounds), [])
    rows: dict[str, list[dict[str, Any]]] = {each: [] for each in contenders}
    limits: list[float] = []
    sizes = {}
    with ExitStack() as stack:
        live = {
            each: stack.enter_context(closing(Process(contender, work.kind, work.method, folder)))
            for each, contender in contenders.items()
        }
        warm = inputs_of(work, WARM_UP)
        for each, process in live.items():
            process.run("singly", warm[:3] if work.order == "singly" else [_first(work, warm)])
            if process.contender.sizes:
                sizes[each] = process.run("tune", warm[:100])
            elif work.order == "together":
                process.run("together", warm[:100])
        for number in range(rounds):
            inputs = inputs_of(work, number)
            found = {each: live[each].run(work.order, inputs) for each in in_turns(list(live), number)}
            wanted = found[THEIRS]["output"]
            for each, answer in found.items():
                answer["apart"] = check_equal(contenders[each], wanted, answer.pop("output"))
                rows[each].append(answer)
            limits.append(limit())
    flops = [cost_of_tokens(folder, token_lengths(folder, inputs_of(work, number))) for number in range(rounds)]
    shares = (
        [each / gflops for each, gflops in zip(flops, limits, strict=True)]
        if work.order == "together" and all(flops)
        else []
    )
    return row(work, sizes, rows, shares)


def _first(work: Work, warm: Sequence[Any]) -> list[Any]:
    """What a model is called with first: short texts where its growth is measured, since what it keeps from then on does not count."""
    return texts.texts("query", 3, WARM_UP) if work.order == "growth" else list(warm[:3])


def start_times(work: Work, contenders: Mapping[str, Contender], folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of fresh processes from their start to the first vector, the files in the system's cache."""
    rows: dict[str, list[dict[str, Any]]] = {each: [] for each in contenders}
    for number in range(-1, rounds):
        for each in in_turns(list(contenders), max(number, 0)):
            contender = contenders[each]
            (text,) = inputs_of(work, max(number, 0))
            code = (
                f"from {contender.engine} import {work.kind}; "
                f"{work.kind}({str(folder)!r}, **{dict(contender.load)!r}).{work.method}([{text!r}])"
            )
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=plain_environment(), capture_output=True)
            if number >= 0:  # the first one fills the caches
                rows[each].append({"seconds": time.perf_counter() - began})
    return rows


def row(
    work: Work, sizes: Mapping[str, int], rows: Mapping[str, list[dict[str, Any]]], shares: Sequence[float]
) -> dict[str, Any]:
    """The figures of each contender: medians with their ranges, ratios taken within each round."""
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


def shown(name: str, work: Work, found: Mapping[str, Any]) -> list[str]:
    """A row as lines for a person."""
    lines = [f"{name}: {work.title} ({found['count']} x {found['texts']}, {found['rounds']} rounds)"]
    for contender, figures in found["contenders"].items():
        ratio = figures["ratio"]
        floor = f", floor {work.floors[contender]:.3g}" if contender in work.floors else ""
        value = _value(figures)
        extra = f"  {figures['share_of_limit']['median']:4.0%} of the limit" if "share_of_limit" in figures else ""
        extra += f"  peak {figures['peak_mb']:.0f} MB" if "peak_mb" in figures else ""
        extra += f"  batch size {figures['batch_size']}" if "batch_size" in figures else ""
        lines.append(
            f"  {contender:34}{value}  {ratio['median']:6.2f} x [{ratio['min']:.2f}, {ratio['max']:.2f}{floor}]{extra}"
        )
    return lines


def main() -> int:
    """Measure the works that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench.encode", description="Times against sentence-transformers.")
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", choices=("mixed", *texts.KINDS))
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    unknown = sorted(set(asked.works) - set(WORKS))
    if unknown:
        parser.error(f"there is no work {', '.join(unknown)}; there are {', '.join(WORKS)}")
    figures: dict[str, Any] = {}
    aims: dict[str, tuple[str, float]] = {}
    with TemporaryDirectory() as root:
        for name in asked.works or WORKS:
            work = WORKS[name] if asked.texts is None else with_texts(WORKS[name], asked.texts)
            label = name if asked.texts is None else f"{name}-{asked.texts}"
            try:
                found = measure(name, work, asked.rounds, Path(root), asked.only)
            except ImportError as error:
                print(error, file=sys.stderr)
                return 1
            if not asked.json:
                print("\n".join(shown(label, work, found)), flush=True)
            if asked.save:
                from bench.encode_results import save

                save(label, found)
            figures |= figures_of(label, found)
            aims |= aims_of(label, work, found)
    return report(figures, aims)


def figures_of(label: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """By contender, the ratios of a row, and under names that end in the unit its seconds or megabytes."""
    figures: dict[str, Any] = {}
    for contender, values in found["contenders"].items():
        key, unit = ("growth_mb", "MB") if "growth_mb" in values else ("seconds", "s")
        figures |= {f"{label}: {contender}": values["ratio"], f"{label}: {contender}, {unit}": values[key]}
    return figures


def aims_of(label: str, work: Work, found: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """What those who took part should reach, by the name of the figure."""
    unit = "MB" if work.order == "growth" else "s"
    here = found["contenders"]
    return {f"{label}: {name}": (">=", floor) for name, floor in work.floors.items() if name in here} | {
        f"{label}: {name}, {unit}": ("<", most) for name, most in work.most.items() if name in here
    }


def with_texts(work: Work, kind: str) -> Work:
    """The same work on another kind of text, of which nothing is asked."""
    return replace(work, texts=kind, floors={}, most={})


if __name__ == "__main__":
    raise SystemExit(main())
