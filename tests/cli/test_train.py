"""``train`` chooses a loss, says what it reads, and writes a model."""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")
pytest.importorskip("accelerate", reason="the trainers need it")

import st_core

pytestmark = pytest.mark.torch

WORDS = "tree file list number fox copy sort word".split()  # noqa: SIM905


@pytest.fixture
def rows(tmp_path):
    """Write pairs of a question and an answer."""
    lines = [json.dumps({"query": f"where is the {word}", "answer": f"the {word} is here"}) for word in WORDS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path / "rows.jsonl"


def base(checkpoints, name="bert-mean"):
    """The folder of a small checkpoint."""
    return ["--base", checkpoints.folder(name), "--batch", "4", "--max-steps", "2"]


def test_a_dense_model_is_trained(cli, checkpoints, rows, tmp_path):
    """The folder has the model, its curves and its log; what is read is shown before."""
    outcome = cli("train", "dense", rows, *base(checkpoints), "--eval", rows, "--out", tmp_path / "out", "--json")

    assert outcome.status == 0
    assert outcome.err.startswith("loss MultipleNegativesRankingLoss: there are no labels")
    assert "query: query, prompt 'query: ', as 'where is the tree'" in outcome.err
    assert "step 1 of 2: loss " in outcome.err
    answer = outcome.json
    assert (answer["steps"], answer["loss"]) == (2, "MultipleNegativesRankingLoss")
    assert answer["metrics"].keys() >= {"loss", "eval_loss"}
    model = st_core.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    before = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    assert abs(model.encode("a tree") - before.encode("a tree")).max() > 1e-6
    assert "<polyline" in (tmp_path / "out" / "curves.svg").read_text()
    assert json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])["step"] == 1


def test_a_reranker_gets_a_new_head(cli, checkpoints, tmp_path):
    """From a plain transformer, with the loss that labels call for."""
    rows = [
        json.dumps({"query": word, "answer": f"the {word}", "label": place % 2}) for place, word in enumerate(WORDS)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    plain = ["--base", checkpoints.transformer("bert"), "--batch", "4", "--max-steps", "1"]

    outcome = cli("train", "reranker", tmp_path / "rows.jsonl", *plain, "--out", tmp_path / "out")

    assert outcome.status == 0
    assert "loss BinaryCrossEntropyLoss: 'label' is from 0 to 1" in outcome.err
    assert outcome.out.splitlines()[-1].startswith(f"{tmp_path}/out: trained for 1 steps in ")
    assert st_core.CrossEncoder(str(tmp_path / "out"), device="cpu").num_labels == 1


def test_an_inference_free_model_is_trained(cli, checkpoints, rows, tmp_path):
    """Queries are tokens whose weights start as their rarity in the answers, and are trained at a rate of their own."""
    plain = ["--base", checkpoints.transformer("bert"), "--batch", "4", "--max-steps", "2"]

    outcome = cli("train", "sparse", rows, *plain, "--inference-free", "--out", tmp_path / "out")

    assert outcome.status == 0
    assert "route 'query'" in outcome.err
    model = st_core.SparseEncoder(str(tmp_path / "out"), device="cpu")
    query, *others = model.encode_query(["where is the tree", "the"]).rows()
    weights = dict(query.to_mapping())
    the = model.tokenizer.token_to_id("the")
    occurring = np.log1p(0.5 / (len(WORDS) + 0.5))
    assert 0 < abs(weights[the] - occurring) < 4 * 1e-3
    assert others[0].to_mapping() == {the: weights[the]}


def test_an_interrupted_training_says_how_to_resume(cli, checkpoints, rows, tmp_path, monkeypatch):
    """It saves a checkpoint after its step, and continues from there."""
    shown = []

    def interrupt(step, *_):
        shown.append(step)
        if len(shown) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys.modules["st_connectors.cli.train"], "show_log", interrupt)
    arguments = ["train", "dense", rows, *base(checkpoints), "--max-steps", "4", "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["st-connectors", *map(str, arguments)])

    stopped = cli(*arguments)
    refused = cli(*arguments)
    other = cli(*arguments, "--resume", "--base", "builtin:dense")
    resumed = cli(*arguments, "--resume", "--json")

    assert stopped.status == 130
    assert "stopping after this step; press Ctrl-C again to end at once" in stopped.err
    last = stopped.err.splitlines()[-1]
    assert last.startswith("stopped after step 2; continue with: st-connectors train dense ")
    assert last.endswith(" --resume")
    assert (refused.status, "has checkpoints; pass --resume" in refused.error_line()) == (2, True)
    assert (other.status, "now builtin:dense; resume it with the same options" in other.error_line()) == (2, True)
    assert resumed.json["steps"] == 4


BAD = [
    (["dense", "absent.jsonl"], "absent.jsonl"),
    (["dense", "rows.jsonl", "--loss", "NoLoss"], "unknown loss 'NoLoss' of a dense model; expected one of AnglELoss"),
    (["dense", "rows.jsonl", "--loss", "CoSENTLoss"], "CoSENTLoss needs a column of labels"),
    (["dense", "rows.jsonl", "--columns", "query"], "a training needs two or more columns of texts"),
    (["dense", "rows.jsonl", "--ids", "query"], "--ids 'query': expected NAME=VALUE"),
    (["dense", "rows.jsonl", "--prompts", '{"x": "y"}'], "prompts has the key 'x'"),
    (["dense", "rows.jsonl", "--resume"], "no complete checkpoint to resume from"),
    (["dense", "labels.csv"], "column 'label': expected a number"),
    (["dense", "rows.jsonl", "--inference-free"], "--inference-free is for sparse models, not for dense"),
    (["sparse", "rows.jsonl", "--inference-free", "--query-terms", "9"], "--query-terms is for queries that a"),
    (["sparse", "rows.jsonl", "--inference-free", "--base", "builtin:sparse"], "has routes for queries and documents"),
    (["reranker", "rows.jsonl", "--base", "builtin:rerank", "--loss", "CrossEntropyLoss"], "has one label, and Cross"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_cannot_be_trained_is_one_line(cli, checkpoints, rows, tmp_path, monkeypatch, arguments, message):
    """Without a traceback, before the first step."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("query,answer,label\na,b,yes\n")

    chosen = base(checkpoints)[2 * ("--base" in arguments) :]

    outcome = cli("train", *arguments, *chosen, "--out", "out")

    assert outcome.status == 2
    assert message in outcome.err.splitlines()[-1]
    assert not (tmp_path / "out" / "modules.json").exists()


def test_an_adapter_is_trained_and_merged(cli, checkpoints, rows, tmp_path):
    """``--lora`` saves the adapter, ``--merge`` the weights; both have the same vectors."""
    pytest.importorskip("peft", reason="it makes the adapter")
    chosen = ["train", "dense", rows, *base(checkpoints), "--lora", "4", "--learning-rate", "0.01"]

    plain, merged = cli(*chosen, "--out", tmp_path / "one"), cli(*chosen, "--merge", "--out", tmp_path / "two")
    refused = cli("train", "dense", rows, *base(checkpoints), "--merge", "--out", tmp_path / "three")

    assert (plain.status, merged.status) == (0, 0)
    assert json.loads((tmp_path / "one" / "adapter_config.json").read_text())["lora_alpha"] == 8
    assert not (tmp_path / "two" / "adapter_config.json").exists()
    models = [st_core.SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("one", "two")]
    vectors = [model.encode("a tree") for model in models]
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
    assert (refused.status, "--merge is for adapters; pass --lora RANK too" in refused.error_line()) == (2, True)
