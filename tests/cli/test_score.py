"""``score`` writes the scores of teachers as labels."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

import st_core

pytestmark = pytest.mark.torch

WORDS = "tree file list number fox copy sort word".split()  # noqa: SIM905


@pytest.fixture
def rows(tmp_path):
    """Write pairs of a question and an answer."""
    lines = [json.dumps({"query": f"where is the {word}", "answer": f"the {word} is here"}) for word in WORDS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path / "rows.jsonl"


def test_rows_are_scored_by_teachers(cli, checkpoints, rows, tmp_path):
    """With the logits of a cross-encoder, or several teachers on one scale."""
    reranker = str(checkpoints.folder("rerank-bert"))

    one = cli("score", rows, "--model", reranker, "--out", tmp_path / "one.jsonl", "--json")
    two = cli(
        "score", rows, "--model", f"reranker={reranker}", "--model", "dense=builtin:dense", "--out", tmp_path / "2"
    )

    scored = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    logits = st_core.CrossEncoder(reranker, device="cpu").predict(
        [(row["query"], row["answer"]) for row in scored], activation_fn=lambda value: value
    )
    assert one.json == {
        "rows": 8,
        "file": f"{tmp_path}/one.jsonl",
        "query": "query",
        "documents": ["answer"],
        "align": "none",
    }
    assert [row["score"] for row in scored] == pytest.approx(list(logits), abs=1e-5)
    assert two.out == f"8 rows with the scores of answer in {tmp_path}/2\n"
    assert "exists; delete it" in cli("score", rows, "--model", reranker, "--out", tmp_path / "2").error_line()
    assert "expected MODEL, or KIND=MODEL" in cli("score", rows, "--model", "x=y", "--out", "3").error_line()
    assert "no column 'q'" in cli("score", rows, "--model", reranker, "--columns", "q,a", "--out", "3").error_line()
