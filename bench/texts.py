"""Real texts of fixed lengths for timing: word sequences of manuals, with lengths from named distributions.

========== =================================================== =========
kind       words in a text                                     of mixed
========== =================================================== =========
query      any number of 3 to 10                               3 in 10
describe   lognormal, median 55 (80 tokens), sigma 0.4, 15-150 6 in 10
article    lognormal, median 350 (500 tokens), sigma 0.15      1 in 10
========== =================================================== =========

The same kind, count and round yield the same texts everywhere. Rounds of a kind do not share words of the material
until all of it is used.
"""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path
from random import Random

MATERIAL = Path(__file__).parent / "builtin" / "texts.txt.xz"
KINDS = ("query", "describe", "article")
MIXED = (0.3, 0.6, 0.1)
MEAN = {"query": 7, "describe": 60, "article": 355, "mixed": 75}
"""Average words per text."""


@cache
def words() -> tuple[str, ...]:
    """Return all words of the material, with its lines in a fixed random order."""
    lines = lzma.decompress(MATERIAL.read_bytes()).decode().splitlines()
    Random(0).shuffle(lines)
    return tuple(word for line in lines for word in line.split())


def _length(kind: str, random: Random) -> int:
    if kind == "mixed":
        kind = random.choices(KINDS, MIXED)[0]
    if kind == "query":
        return random.randint(3, 10)
    if kind == "describe":
        return min(150, max(15, round(55 * random.lognormvariate(0, 0.4))))
    if kind == "article":
        return round(350 * random.lognormvariate(0, 0.15))
    raise ValueError(f"unknown kind of text {kind!r}; expected one of mixed, {', '.join(KINDS)}")


def texts(kind: str, count: int, number: int) -> list[str]:
    """Return the texts of round ``number``."""
    every = words()
    random = Random(f"{kind} {number}")
    start = number * count * MEAN[kind] * 5 // 4
    cut_texts = []
    for _ in range(count):
        length = _length(kind, random)
        cut_texts.append(" ".join(every[(start + offset) % len(every)] for offset in range(length)))
        start += length
    return cut_texts


def pairs(count: int, number: int) -> list[tuple[str, str]]:
    """Return a query paired with each of ``count`` descriptions, as a reranker reads them."""
    (query,) = texts("query", 1, number)
    return [(query, text) for text in texts("describe", count, number)]
