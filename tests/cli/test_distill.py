"""``distill`` makes smaller models and says how close they are to their teachers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

from families import documentation

import st_core
from st_core import models

pytestmark = pytest.mark.torch

KINDS = (models.StaticEmbedding, models.Normalize)


@pytest.fixture
def texts(tmp_path):
    """Write lines of documentation."""
    lines = (line.strip() for text in documentation() for line in text.splitlines())
    chosen = [line for line in dict.fromkeys(lines) if len(line.split()) > 4][:120]
    (tmp_path / "texts.txt").write_text("\n".join(chosen))
    return tmp_path / "texts.txt"


def test_a_static_model_is_distilled(cli, checkpoints, texts, tmp_path):
    """It runs on numpy, and its agreement with the teacher on held-out texts is reported."""
    teacher = checkpoints.folder("bert-mean")
    arguments = ["distill", "static", "--teacher", teacher, "--dimensions", "16", "--out"]

    fitted = cli(*arguments, tmp_path / "fitted", "--texts", texts, "--json")
    plain = cli(*arguments, tmp_path / "plain")

    assert fitted.status == plain.status == 0
    answer = fitted.json
    assert (answer["kind"], answer["dimensions"], answer["texts"], answer["held_out_texts"]) == ("static", 16, 108, 12)
    assert 0.2 < answer["agreement"] <= 1
    assert plain.out == f"{tmp_path}/plain: dimensions 16, texts 0, held out texts 0\n"
    model = st_core.SentenceTransformer(str(tmp_path / "fitted"), device="cpu")
    assert [isinstance(each, kind) for each, kind in zip(model, KINDS, strict=True)] == [True, True]
    assert model.encode("copy").shape == (16,)


def test_dimensions_are_reduced(cli, checkpoints, texts, tmp_path):
    """The explained variance is printed."""
    teacher = checkpoints.folder("bert-mean")

    outcome = cli(
        "distill", "dimensions", "--teacher", teacher, "--texts", texts, "--dimensions", "8", "--out", tmp_path / "out"
    )

    assert outcome.status == 0
    assert outcome.out.startswith(f"{tmp_path}/out: dimensions 8, texts 108, explained variance 0.")
    vectors = st_core.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(["a tree", "a file"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dimensions", "--out", "new"], "dimensions needs texts of the domain; pass --texts FILE"),
        (["dimensions", "--out", "new", "--texts", "texts.txt", "--dimensions", "99"], "expected 1 to 32 dimensions"),
        (["static", "--out", "."], ". is not empty; delete it, or choose another --out"),
        (["static", "--out", "new", "--texts", "absent.txt"], "absent.txt"),
        (["static", "--out", "new", "--texts", "empty.txt"], "empty.txt: no texts"),
    ],
)
def test_mistakes_are_one_line(cli, checkpoints, texts, tmp_path, monkeypatch, arguments, message):
    """Nothing is written."""
    monkeypatch.chdir(texts.parent)
    (tmp_path / "empty.txt").write_text("\n")

    outcome = cli("distill", *arguments, "--teacher", checkpoints.folder("bert-mean"))

    assert outcome.status == 2
    assert message in outcome.err.splitlines()[-1]
    assert not (tmp_path / "new").exists()
