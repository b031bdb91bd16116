"""Eight threads, each with wishes of its own, get the answers that each would get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

pytestmark = pytest.mark.torch

THREADS = 8
ROUNDS = 6


def wishes(number):
    """What thread ``number`` asks for: no two ask the same."""
    return {
        "prompt": f"thread {number}: " * (number % 3),
        "truncate_dim": 4 + 3 * number,
        "normalize_embeddings": number % 2 == 0,
        "processing_kwargs": {"text": {"max_length": 5 + 6 * number}},
        "batch_size": 1 + number,
    }


def together(calls):
    """The results of each call, made ROUNDS times, all threads starting at once."""
    start = Barrier(len(calls))

    def repeat(call):
        start.wait(timeout=60)
        return [call() for _ in range(ROUNDS)]

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(repeat, calls))


@pytest.mark.parametrize("name", ["bert-mean", "roberta-six", "static"])
def test_dense_answers_do_not_mix(checkpoints, texts, agree, name):
    """Prompt, width, normalisation and maximum length of one call never reach another."""
    _, ours = checkpoints.pair("SentenceTransformer", name)
    some = [text for text in texts if len(text) < 1000]
    alone = [ours.encode(some, **wishes(number)) for number in range(THREADS)]

    found = together([lambda number=number: ours.encode(some, **wishes(number)) for number in range(THREADS)])

    for number in range(THREADS):
        for result in found[number]:
            agree(result, alone[number], 1e-6)


def test_a_width_set_for_a_while_stays_in_its_thread(checkpoints, texts):
    """truncate_embeddings in one thread leaves the others' vectors whole."""
    _, ours = checkpoints.pair("SentenceTransformer", "bert-mean")

    def truncated(width):
        with ours.truncate_embeddings(width):
            return ours.encode(texts[:3]).shape

    calls = [lambda width=width: truncated(width) for width in (3, 9, None, 20)]

    assert [set(shapes) for shapes in together(calls)] == [{(3, 3)}, {(3, 9)}, {(3, 32)}, {(3, 20)}]


def test_sparse_answers_do_not_mix(checkpoints, texts):
    """Prompt, number of weights and maximum length of one call never reach another."""
    _, ours = checkpoints.pair("SparseEncoder", "splade-max")
    options = [
        {
            "prompt": "p " * number,
            "max_active_dims": 2 + number,
            "processing_kwargs": {"text": {"max_length": 6 + number}},
        }
        for number in range(THREADS)
    ]
    alone = [ours.encode(texts[:6], **wish) for wish in options]

    found = together([lambda wish=wish: ours.encode(texts[:6], **wish) for wish in options])

    for number in range(THREADS):
        for matrix in found[number]:
            np.testing.assert_array_equal(matrix.indices, alone[number].indices)
            np.testing.assert_allclose(matrix.values, alone[number].values, atol=1e-6)


def test_pairs_do_not_mix(checkpoints, texts, agree):
    """Maximum length and activation of one call never reach another."""
    _, ours = checkpoints.pair("CrossEncoder", "rerank-plain")
    pairs = [("copy a tree", text) for text in texts[:6]]
    options = [{"processing_kwargs": {"text": {"max_length": 8 + 5 * number}}} for number in range(THREADS)]
    alone = [ours.predict(pairs, **wish) for wish in options]

    found = together([lambda wish=wish: ours.predict(pairs, **wish) for wish in options])

    for number in range(THREADS):
        for scores in found[number]:
            agree(scores, alone[number], 1e-6)
