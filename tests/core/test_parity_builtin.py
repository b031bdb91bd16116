"""sentence-transformers reads the built-in dense model's folder and gives the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.torch

TEXTS = [
    "Copy a directory tree.",
    "",
    "Größe, naïve; 東京 🙂",
    "[CLS] one [MASK]",
    "word " * 3000,
    "parse a date string",
]


def test_dense_folder_equals_sentence_transformers():
    """The folder is a checkpoint of sentence-transformers; vectors and similarities agree within 1e-5."""
    import sentence_transformers

    from st_core import SentenceTransformer
    from st_core.builtin import path

    theirs = sentence_transformers.SentenceTransformer(str(path("dense")), device="cpu")
    ours = SentenceTransformer("builtin:dense")

    expected = theirs.encode(TEXTS)
    assert np.abs(ours.encode(TEXTS) - expected).max() <= 1e-5
    assert np.abs(ours.similarity(expected, expected) - theirs.similarity(expected, expected).numpy()).max() <= 1e-5
