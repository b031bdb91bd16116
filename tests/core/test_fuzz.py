"""Texts that nobody wrote: generated ones through every built-in model and every kind of tiny checkpoint."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

import st_core  # noqa: E402 -- after the guard

pytestmark = pytest.mark.torch

COUNT = int(os.environ.get("ST_FUZZ_TEXTS", "60"))
"""How many texts; ``ST_FUZZ_TEXTS=20000`` is the long run."""

SEED = int(os.environ.get("ST_FUZZ_SEED", "1"))
ALONE = 12
"""Of so many texts the result alone is compared with the result in the batch; of the long run, one in fifty."""

DENSE = [
    "builtin:dense",
    "bert-mean",
    "roberta-six",
    "mpnet-max",
    "xlm-roberta-weighted",
    "distilbert-cls",
    "cased-lower",
    "qwen3-last",
    "mistral-weighted",
    "plain-llama",
    "modernbert-cls",
    "t5-mean",
    "chat-flat",
    "chat-parts",
    "lora",
    "layers",
    "words",
    "words-lstm",
    "words-cnn",
    "bow",
    "static",
    "model2vec-int8",
]
SPARSE = ["builtin:sparse", "splade-max", "splade-sum", "splade-modernbert", "sparse-static", "csr"]
CROSS = ["rerank-bert", "rerank-roberta", "rerank-modernbert", "rerank-causal", "rerank-template"]


def texts(count: int) -> Iterator[str]:
    """Characters of all planes, halves of surrogate pairs, control characters, repeats, mixtures, and nothing."""
    made = random.Random(SEED)
    planes = [(0, 0xFFFF), *((plane << 16, (plane << 16) + 0xFFFF) for plane in range(1, 17))]
    controls = "".join(map(chr, [*range(32), 0x7F, *range(0x80, 0xA0), 0x200B, 0x200D, 0x202E, 0x2028, 0xFEFF, 0xFFFE]))
    words = [
        "copy",
        "a",
        "directory",
        "<s>",
        "[MASK]",
        "</s>",
        "<|im_end|>",
        "yes",
        "\N{COMBINING ACUTE ACCENT}",
        "{{",
        "%s",
    ]
    kinds = [
        lambda: "".join(chr(made.randint(*made.choice(planes))) for _ in range(made.randint(0, 60))),
        lambda: "".join(made.choice(controls) for _ in range(made.randint(1, 40))),
        lambda: chr(made.randint(*made.choice(planes))) * made.choice([1, 7, 100, 3000]),
        lambda: " ".join(made.choice(words) for _ in range(made.randint(0, 90))),
        lambda: "".join(
            made.choice([*words, chr(made.randint(0, 0x2FFF)), " ", "\n"]) for _ in range(made.randint(0, 50))
        ),
        lambda: made.choice(["", " ", "\x00", "\ud800", "\udfff\ud800", "\r\n\t", "\U0010ffff"]),
    ]
    return (made.choice(kinds)() for _ in range(count))


@pytest.fixture(scope="module")
def generated() -> list[str]:
    return list(texts(COUNT))


@pytest.fixture
def load(checkpoints):
    """A model of a class, built in or tiny."""

    def model(kind, name):
        builtin = name.startswith("builtin:")
        return getattr(st_core, kind)(name) if builtin else checkpoints.load(st_core, kind, name)

    return model


def chosen(count: int) -> list[int]:
    """The positions that are compared with the result alone."""
    return random.Random(SEED).sample(range(count), min(count, max(ALONE, count // 50)))


@pytest.mark.parametrize("name", DENSE)
def test_dense_models_read_anything(load, agree, generated, name):
    """No crash, no value that is no number, and each text alone as in the batch."""
    model = load("SentenceTransformer", name)

    vectors = model.encode(generated)

    assert np.isfinite(vectors).all()
    some = chosen(len(generated))
    agree(np.stack([model.encode(generated[index]) for index in some]), vectors[some])


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_models_read_anything(load, agree, generated, name):
    """The same, for queries and for documents."""
    model = load("SparseEncoder", name)
    some = chosen(len(generated))

    for encode in (model.encode_query, model.encode_document):
        matrix = encode(generated)
        assert np.isfinite(matrix.values).all()
        assert len(matrix) == len(generated)
        for index in some:
            agree(encode([generated[index]]), matrix[index : index + 1], 2e-5)


@pytest.mark.parametrize("name", CROSS)
def test_cross_encoders_read_anything(load, agree, generated, name):
    """The same, for pairs of generated texts."""
    model = load("CrossEncoder", name)
    pairs = list(zip(generated, generated[1:] + generated[:1], strict=True))

    scores = model.predict(pairs)

    assert np.isfinite(scores).all()
    some = chosen(len(pairs))
    agree(np.stack([model.predict(pairs[index]) for index in some]), scores[some])
