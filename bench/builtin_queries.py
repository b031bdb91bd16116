"""Learn how much each word piece of a query says about its answer, for the query half of ``builtin:sparse``.

    python -m bench.builtin_queries FOLDER     reads what ``bench.builtin_material`` downloaded into FOLDER

A question consists of words that name its subject and words that only ask: "what", "describe", "possible". BM25's idf
cannot tell them apart, because manuals rarely ask. The factor of a piece is ``exp(v·a)``: v is MiniLM's input vector
of the piece, centred and of length one, and the direction a is learned, so that words absent from the material have
factors too. A query is a part of a text, usually put into hand-written frames of ``bench/builtin/frames.txt``, and its
answer is the rest of the text. The loss is the cross-entropy of the answer among the answers of a batch, where the
score is the inner product of ``builtin:sparse`` with its query weights multiplied by the factors.

The result, one number for each piece, is committed as ``bench/builtin/query_factors.npz``. Like the built-in models,
it is bit-equal each time under the same kernels.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.builtin_material import descriptions
from bench.builtin_models import (
    FACTORS,
    KERNELS,
    centred_vectors,
    frames,
    piece_weights,
    saturated,
    teacher_tokenizer,
)

__all__ = ["examples", "learn"]

STEPS, BATCH, RATE = 300, 384, 0.009
DECAY = 1e-3
RUNS = 4  # with different batches and frames; their directions are averaged
MOST = 1.5  # factors above are reduced to it, so that single words of the material's subject do not rule a query
FRAMED = 0.8  # share of the queries put into one to three frames
SHORTEST, LONGEST = 5, 100  # words of a query cut from a text
REST = 15  # least words of an answer
ALONE = 0.7  # share of the cut queries without the title
CHARACTERS = 2500

MANUALS = (
    "sqlite3-doc/usr/share/doc/**/*.html",
    "postgresql-doc-15/usr/share/doc/**/*.html",
    "apache2-doc/usr/share/doc/apache2-doc/manual/en/**/*.html",
)

Array = NDArray[Any]
Rows = list[Array]


class _Sections(HTMLParser):
    """Collects the headings of a page, each with the text up to the next heading."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[list[str]] = []
        self._at = 1

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the parser's interface
        if re.fullmatch("h[1-6]", tag):
            self.sections.append(["", ""])
            self._at = 0
        elif tag in {"p", "div", "dt", "pre", "table"}:
            self.handle_data("\n")
        elif tag in {"li", "td", "tr", "br", "dd"}:
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        if re.fullmatch("h[1-6]", tag):
            self._at = 1

    def handle_data(self, data: str) -> None:
        if self.sections:
            self.sections[-1][self._at] += data


def sections(pages: Iterable[Path]) -> list[tuple[str, str]]:
    """Return the headings of HTML pages with the text of their sections, one line for each paragraph."""
    texts = []
    for page in pages:
        parser = _Sections()
        parser.feed(page.read_text("utf-8", errors="replace"))
        for heading, body in parser.sections:
            named = re.sub(r"^(Chapter|Appendix)\s*\S+\s*|^[\d.]+\s*|[†#]", "", " ".join(heading.split())).strip()
            texts.append((named, re.sub(r"[ \t]*\n\s*", "\n", re.sub(r"[ \t]+", " ", body)).strip()))
    return texts


def material(folder: Path) -> list[list[tuple[str, str]]]:
    """Return titles and bodies of Debian's descriptions and of the sections of the three manuals, in four groups."""
    texts = [text.partition("\n") for text in descriptions(folder)]
    groups = [[(title, "\n".join(map(_one_line, re.split(r"\n\s*\n", body)))) for title, _, body in texts]]
    groups += [sections(page for page in sorted(folder.glob(pattern)) if page.is_file()) for pattern in MANUALS]
    return [_distinct(group) for group in groups]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _distinct(texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the texts with a title and a body of 80 characters, without repetitions of the first 300."""
    firsts = {body[:300]: (title, body) for title, body in texts if title and len(body) >= 80}
    return list(firsts.values())


def examples(texts: Sequence[tuple[str, str]], order: np.random.Generator) -> list[tuple[str, str]]:
    """Return pairs of a query and its answer: title and body, and some sentences and the others."""
    pairs = []
    for title, body in texts:
        if len(body) > 120:
            pairs.append((title, body[:CHARACTERS]))
        sentences = [each for each in re.split(r"(?<=[.?!])\s+|\n", body[:3000]) if each.strip()]
        if len(sentences) < 4:
            continue
        count = int(order.integers(1, min(5, len(sentences) // 2) + 1))
        start = int(order.integers(0, len(sentences) - count + 1))
        query = " ".join(sentences[start : start + count])
        rest = " ".join(sentences[:start] + sentences[start + count :])[:CHARACTERS]
        if SHORTEST <= len(query.split()) <= LONGEST and len(rest.split()) >= REST:
            pairs.append((query if order.random() < ALONE else f"{title} {query}", rest))
    return pairs


def _rows(texts: Sequence[str], term: Array) -> Rows:
    """Return the terms of each text."""
    encodings = teacher_tokenizer().encode_batch_fast(list(texts), add_special_tokens=False)
    rows = [term[np.asarray(encoding.ids, np.int64)] for encoding in encodings]
    return [row[row >= 0] for row in rows]


def _counted(rows: Rows, width: int) -> Any:
    """Return the number of occurrences of each term in each row, as a sparse matrix [n, V]."""
    from scipy.sparse import csr_array

    indptr = np.cumsum([0, *map(len, rows)])
    matrix = csr_array((np.ones(indptr[-1]), np.concatenate(rows), indptr), shape=(len(rows), width))
    matrix.sum_duplicates()
    return matrix


def _framed(query: Array, around: Sequence[tuple[Array, Array]], order: np.random.Generator) -> Array:
    """Return the terms of a query inside one to three random frames, or mostly so."""
    if order.random() >= FRAMED:
        return query
    for which in order.choice(len(around), 1 if order.random() < 0.5 else int(order.integers(2, 4))):
        before, after = around[which]
        query = np.concatenate([before, query, after])
    return query


def learn(groups: Sequence[Sequence[tuple[str, str]]]) -> Array:
    """Return the factor of each piece, float16 [V], learned from groups of pairs; a batch comes from one group."""
    weight, term = piece_weights()
    vectors, width = centred_vectors(), len(term)
    halves = [line.split("X") for line in frames()]
    around = list(zip(*(_rows(side, term) for side in zip(*halves, strict=True)), strict=True))
    queries = [_rows([query for query, _ in pairs], term) for pairs in groups]
    answers = [saturated(_counted(_rows([answer for _, answer in pairs], term), width)) for pairs in groups]
    directions = [_direction(queries, answers, around, weight, vectors, seed) for seed in range(RUNS)]
    return np.minimum(np.exp(vectors @ np.mean(directions, axis=0)), MOST).astype(np.float16)


def _direction(
    queries: Sequence[Rows],
    answers: Sequence[Any],
    around: Sequence[tuple[Array, Array]],
    weight: Array,
    vectors: Array,
    seed: int,
) -> Array:
    """Return the direction [d] that Adam reaches with the batches of one seed."""
    shares = np.array([len(rows) ** 0.6 for rows in queries])
    order = np.random.default_rng(seed)
    value = np.append(np.zeros(vectors.shape[1]), -1.0)  # the direction, and the logarithm of the scores' scale
    mean, spread = np.zeros_like(value), np.zeros_like(value)
    for step in range(STEPS):
        group = order.choice(len(queries), p=shares / shares.sum())
        chosen = order.choice(len(queries[group]), BATCH, replace=False)
        query_terms = _counted([_framed(queries[group][at], around, order) for at in chosen], len(weight))
        slope = gradient(value, query_terms, answers[group][chosen], weight, vectors)
        mean = 0.9 * mean + 0.1 * slope
        spread = 0.999 * spread + 0.001 * slope * slope
        root = np.sqrt(spread / (1 - 0.999 ** (step + 1))) + 1e-8
        value = value - RATE * (1 - step / STEPS) / (1 - 0.9 ** (step + 1)) * mean / root
    return value[:-1]


def gradient(value: Array, query_terms: Any, answers: Any, weight: Array, vectors: Array) -> Array:
    """Return the gradient [d + 1] of the loss of a batch for the direction and the logarithm of the scale.

    ``query_terms`` [n, V] counts the terms of queries, ``answers`` [n, V] are the documents' weights, ``weight`` [V]
    the idf and ``vectors`` [V, d] the centred vectors of the pieces.
    """
    used = np.unique(query_terms.indices)
    direction, scale = value[:-1], np.exp(value[-1])
    factor = weight[used] * np.exp(vectors[used] @ direction)
    query, answer = query_terms[:, used].multiply(factor).tocsr(), answers[:, used]
    raw = (query @ answer.T).toarray()
    logits = raw * scale
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    wrong = (share - np.eye(len(share))) / len(share)
    slopes = query.multiply((answer.T @ wrong.T).T * scale).sum(axis=0)
    return np.append(vectors[used].T @ slopes + 2 * DECAY * direction, (wrong * raw).sum() * scale)


def main() -> None:
    if any(os.environ.get(name) != value for name, value in KERNELS.items()):
        os.execve(sys.executable, [sys.executable, "-m", "bench.builtin_queries", *sys.argv[1:]], os.environ | KERNELS)
    folder = Path(sys.argv[1])
    order = np.random.default_rng(0)
    groups = [examples(texts, order) for texts in material(folder)]
    factor = learn(groups)
    np.savez_compressed(FACTORS, factor=factor)
    counts = ", ".join(f"{len(pairs):,}" for pairs in groups)
    print(f"{counts} pairs; factors from {factor.min():.2f} to {factor.max():.2f}, {FACTORS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
