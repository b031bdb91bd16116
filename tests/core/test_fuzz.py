"""Generated texts through every built-in model, tiny checkpoint and some graphs, alone and together."""

from __future__ import annotations

import os
from operator import mul

import numpy as np
import pytest
from catalogue import BUILDERS
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

import st_core  # noqa: E402 -- after the guard

pytestmark = [pytest.mark.torch, pytest.mark.long]

TOGETHER = 20
"""How many texts are in a call."""

CALLS = max(1, int(os.environ.get("ST_FUZZ_TEXTS", "100")) // TOGETHER)
"""``ST_FUZZ_TEXTS=20000`` is the long run."""

PLANES = st.one_of(
    *(st.characters(min_codepoint=first, max_codepoint=first + 0xFFFF) for first in range(0, 0x110000, 0x10000))
)
CONTROLS = st.sampled_from(
    [*map(chr, [*range(32), *range(0x7F, 0xA0), 0x200B, 0x200D, 0x2028, 0x202E, 0xFEFF, 0xFFFE])]
)
SURROGATES = st.characters(categories=["Cs"])
WORDS = st.sampled_from(
    ["copy", "a", "directory", "<s>", "</s>", "[MASK]", "<|im_end|>", "yes", "{{", "%s", "\N{COMBINING ACUTE ACCENT}"]
)
PIECES = PLANES | CONTROLS | SURROGATES | WORDS
TEXT = st.one_of(
    st.text(PLANES, max_size=60),
    st.text(CONTROLS, max_size=40),
    st.lists(WORDS, max_size=90).map(" ".join),
    st.lists(PIECES, max_size=50).map("".join),
    st.builds(mul, PIECES, st.sampled_from([7, 100, 3000])),
    st.sampled_from(["", " ", "\r\n\t", "\x00", "\ud800", "\udfff\ud800", "\U0010ffff"]),
)
TEXTS = st.lists(TEXT, min_size=TOGETHER, max_size=TOGETHER, unique=True)
ROLES = st.sampled_from(["encode_query", "encode_document"])

CROSS = [name for name in BUILDERS if name.startswith("rerank-")]
SPARSE = [name for name in BUILDERS if name.startswith(("splade-", "sparse-", "csr", "idf"))]
REFUSED = ["dora"]  # transformers 5.23 reads none of its magnitudes
DENSE = [name for name in BUILDERS if name not in {*CROSS, *SPARSE, *REFUSED}]
GRAPHS = ["openvino", "onnx"]
DENSE_GRAPHS = [
    "openvino:roberta-six",
    "onnx:roberta-six",
    "openvino:modernbert-cls",
    "openvino:mistral-weighted",
    "onnx:gpt2-last",
]


def on_generated_texts(test):
    """Run a test on lists of generated texts, and on what else it draws, the same in every run of a seed."""
    patient = settings(
        max_examples=CALLS,
        database=None,
        phases=[Phase.generate],  # to make a list of texts shorter takes minutes of forward passes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    return seed(int(os.environ.get("ST_FUZZ_SEED", "1")))(patient(test))


@pytest.fixture(scope="module")
def load(checkpoints, exports):
    """A model of a class: built in, a tiny checkpoint, or with a runtime's name before a colon the graph of one."""

    def model(kind, name):
        source, _, rest = name.partition(":")
        if source in GRAPHS:
            return exports.pair(kind, rest, source)[1]
        return getattr(st_core, kind)(name) if rest else checkpoints.load(st_core, kind, name)

    loaded = {}
    return lambda kind, name: loaded.get((kind, name)) or loaded.setdefault((kind, name), model(kind, name))


@pytest.mark.parametrize("name", ["builtin:dense", *DENSE, *DENSE_GRAPHS])
@on_generated_texts
@given(texts=TEXTS, role=ROLES)
def test_dense_models_read_anything(load, agree, name, texts, role):
    """No crash, no value that is no number, and each text has one vector, in company and alone."""
    encode = getattr(load("SentenceTransformer", name), role)

    vectors = encode(texts)

    assert np.isfinite(vectors).all()
    agree(encode(texts, batch_size=1), vectors)
    agree(encode(texts[0]), vectors[0])


@pytest.mark.parametrize(
    "name", ["builtin:sparse", *SPARSE, "plain-bert-masked", "openvino:splade-sum", "onnx:splade-sum"]
)
@on_generated_texts
@given(texts=TEXTS, role=ROLES)
def test_sparse_models_read_anything(load, agree, name, texts, role):
    """The same of weights."""
    encode = getattr(load("SparseEncoder", name), role)

    weights = encode(texts)

    assert np.isfinite(weights.values).all()
    agree(*but_for_ties(encode(texts, batch_size=1), weights), 2e-5)
    agree(*but_for_ties(encode(texts[:1]), weights[:1]), 2e-5)


@pytest.mark.parametrize("name", [*CROSS, "openvino:rerank-roberta", "onnx:rerank-bert"])
@on_generated_texts
@given(texts=TEXTS)
def test_cross_encoders_read_anything(load, agree, name, texts):
    """The same, for pairs of generated texts."""
    model = load("CrossEncoder", name)
    pairs = list(zip(texts, texts[1:] + texts[:1], strict=True))

    scores = model.predict(pairs)

    assert np.isfinite(scores).all()
    agree(model.predict(pairs, batch_size=1), scores)
    agree(model.predict(pairs[0]), scores[0])


def but_for_ties(found, wanted):
    """Both as dense arrays.

    Of rows with as many weights, weights at the limit of a model's largest ones count as equal whichever was kept.
    """
    found, wanted = found.to_dense(), wanted.to_dense()
    for mine, theirs in zip(found, wanted, strict=True):
        apart = (mine == 0) != (theirs == 0)
        if apart.any() and np.count_nonzero(mine) == np.count_nonzero(theirs):
            least = max(np.abs(row[row != 0]).min() for row in (mine, theirs))
            close = apart & (np.abs(mine + theirs) <= least + 1e-5)
            mine[close] = theirs[close] = 0
    return found, wanted
