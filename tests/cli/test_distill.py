"""``distill`` makes smaller models and says how close they are to their teachers."""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")
oracle = pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")
pytest.importorskip("accelerate", reason="the trainers need it")

from families import documentation  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core import models  # noqa: E402 - after the guard
from st_core.distilling import inference_free_model, rank_correlation, similarity_correlation  # noqa: E402 - after the guard
from st_core.distilling.texts import split_held_out  # noqa: E402 - after the guard

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
    assert plain.out == f"{tmp_path}/plain: dimensions 16, texts 0\n"
    model = st_core.SentenceTransformer(str(tmp_path / "fitted"), device="cpu")
    _, test = split_held_out(texts.read_text().splitlines(), 0.1)
    wanted = st_core.SentenceTransformer(str(teacher), device="cpu").encode(test)
    assert answer["agreement"] == pytest.approx(similarity_correlation(wanted, model.encode(test)), abs=1e-3)
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
        (
            ["static", "--out", "new", "--layers", "2"],
            "--layers is for layers, reranker, inference-free, not for static",
        ),
        (["layers", "--out", "new", "--texts", "texts.txt"], "layers needs --layers, --vocabulary or both"),
        (["layers", "--out", "new", "--texts", "texts.txt", "--layers", "x"], "--layers 'x': expected a number"),
        (["layers", "--out", "new", "--texts", "texts.txt", "--vocabulary", "3"], "a vocabulary needs at least the"),
        (["reranker", "--out", "new", "rows.jsonl"], "reranker needs a model to train; pass --base MODEL"),
        (["reranker", "--out", "new", "--base", "x"], "reranker needs rows of a query and documents; pass DATA"),
        (
            ["static", "--out", "new", "--teacher", "other"],
            "static needs one teacher, got 2; pass --teacher MODEL once",
        ),
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


@pytest.mark.long
def test_layers_and_vocabulary_are_cut_and_trained(cli, checkpoints, texts, tmp_path):
    """The cosine to the teacher's vectors of held-out texts rises; the log is on standard error."""
    teacher = checkpoints.folder("bert-mean")
    chosen = ["--teacher", teacher, "--texts", texts, "--layers", "1", "--vocabulary", "350"]
    trained = ["--epochs", "4", "--batch", "16", "--learning-rate", "2e-3"]

    outcome = cli("distill", "layers", *chosen, *trained, "--out", tmp_path / "out", "--json")

    answer = outcome.json
    assert answer["cosine"] > answer["cosine_before"]
    assert answer["vocabulary"] == 350
    assert "step 1 of 28: loss " in outcome.err
    loaded = oracle.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert (loaded[0].model.config.num_hidden_layers, len(loaded.tokenizer)) == (1, 350)
    lines = texts.read_text().splitlines()
    ours = st_core.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(lines)
    np.testing.assert_allclose(ours, loaded.encode(lines), atol=1e-5)


@pytest.fixture
def rows(tmp_path, texts):
    """Write queries with a positive and a negative."""
    lines = texts.read_text().splitlines()
    listed = [
        {"query": " ".join(line.split()[:3]), "answer": line, "negative": lines[place - 7]}
        for place, line in enumerate(lines)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, listed)))
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(("kind", "teacher"), [("reranker", "rerank-bert"), ("inference-free", "bert-mean")])
def test_a_wrong_base_is_reported_before_the_teachers_score(cli, checkpoints, rows, tmp_path, kind, teacher):
    """Scoring may take hours."""
    prefix = "dense=" if kind == "inference-free" else ""
    chosen = ["--teacher", f"{prefix}{checkpoints.folder(teacher)}", "--base", tmp_path / "absent"]

    outcome = cli("distill", kind, rows, *chosen, "--out", tmp_path / "new")

    assert outcome.status == 3
    assert "absent" in outcome.err.splitlines()[-1]
    assert "scoring the documents" not in outcome.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "checkpoints: no complete checkpoint to resume from; train anew"),
        (["--resume", "--epochs", "0"], "--epochs 0 trains nothing that --resume could continue; leave out one"),
        (["--epochs", "0"], "is not empty; delete it, or choose another --out"),
    ],
)
def test_a_folder_with_another_model_stays(cli, checkpoints, rows, tmp_path, arguments, message):
    """Before the teacher scores."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("mine")
    teacher = checkpoints.folder("rerank-bert")
    chosen = ["distill", "reranker", rows, "--teacher", teacher, "--base", teacher, "--out", tmp_path / "out"]

    outcome = cli(*chosen, *arguments)

    assert (outcome.status, message in outcome.error_line()) == (2, True)
    assert (tmp_path / "out" / "model.safetensors").read_text() == "mine"


def weights(folder):
    """The files of weights of a model, without those of its checkpoints."""
    return [path for path in folder.rglob("*.safetensors") if "checkpoints" not in path.parts]


@pytest.mark.parametrize("kind", ["layers", "reranker", "inference-free"])
def test_an_interrupted_training_is_resumed(cli, checkpoints, texts, rows, tmp_path, monkeypatch, kind):
    """Ctrl-C saves a checkpoint and prints the command, whose result is that of a training without interruption."""
    shown = []

    def interrupt(step, *_):
        shown.append(step)
        if len(shown) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    start = [kind, rows, "--base", checkpoints.transformer("bert")]
    chosen = {
        "layers": ["layers", "--teacher", checkpoints.folder("bert-mean"), "--texts", texts, "--layers", "1"],
        "reranker": [*start, "--teacher", checkpoints.folder("rerank-bert")],
        "inference-free": [*start, "--teacher", "sparse=builtin:sparse"],
    }[kind]
    arguments = ["distill", *chosen, "--batch", "16", "--learning-rate", "1e-3", "--out"]
    whole = cli(*arguments, tmp_path / "whole")
    monkeypatch.setattr(sys.modules["st_connectors.cli.distill"], "show_log", interrupt)
    monkeypatch.setattr("sys.argv", ["st-connectors", *map(str, arguments), str(tmp_path / "out")])

    stopped = cli(*arguments, tmp_path / "out")
    refused = cli(*arguments, tmp_path / "out")
    other = cli(*arguments, tmp_path / "out", "--resume", "--seed", "7")
    base = cli(*arguments, tmp_path / "out", "--resume", "--layers", "2")
    resumed = cli(*arguments, tmp_path / "out", "--resume")

    assert whole.status == 0
    assert stopped.status == 130
    last = stopped.err.splitlines()[-1]
    assert last.startswith(f"stopped after step 2; continue with: st-connectors distill {kind} ")
    assert last.endswith(" --resume")
    assert (refused.status, "has checkpoints; pass --resume" in refused.error_line()) == (2, True)
    assert (other.status, "differ in seed: 42, now 7" in other.err.splitlines()[-1]) == (2, True)
    assert (base.status, "now 2; resume it with the same options" in base.error_line()) == (2, True)
    assert resumed.status == 0
    assert resumed.out.replace("/out:", "/whole:").splitlines()[-1] == whole.out.splitlines()[-1]
    first, second = ({path.name: path.read_bytes() for path in weights(tmp_path / name)} for name in ("whole", "out"))
    assert first == second != {}
    assert (tmp_path / "out" / "curves.svg").exists()
    assert any(line.startswith("loss ") for line in resumed.out.splitlines())


@pytest.mark.long
def test_a_reranker_is_distilled_from_another_or_from_scores(cli, checkpoints, rows, tmp_path):
    """Scores may be in the rows already, as ``score`` writes them; both ways train the same model."""
    teacher = checkpoints.folder("rerank-bert")
    chosen = ["--base", teacher, "--layers", "1", "--epochs", "3", "--batch", "16", "--learning-rate", "1e-3", "--json"]
    assert cli("score", rows, "--model", teacher, "--out", tmp_path / "scored.jsonl").status == 0

    one = cli("distill", "reranker", rows, "--teacher", teacher, *chosen, "--out", tmp_path / "one")
    cli("distill", "reranker", tmp_path / "scored.jsonl", *chosen, "--out", tmp_path / "two")
    none = cli("distill", "reranker", rows, *chosen, "--out", tmp_path / "three")

    assert one.json["loss"] == "MarginMSELoss"
    assert one.json["rows"] == 108
    pairs = [("where is the tree", "a tree"), ("copy", "a list of files")]
    models = [st_core.CrossEncoder(str(tmp_path / name), device="cpu") for name in ("one", "two")]
    np.testing.assert_allclose(models[0].predict(pairs), models[1].predict(pairs), atol=1e-5)
    assert (none.status, "the rows have no scores; pass --teacher MODEL" in none.err) == (2, True)


@pytest.mark.long
def test_a_sparse_model_without_inference_is_distilled_from_an_ensemble(cli, checkpoints, rows, tmp_path):
    """From a plain encoder, whose new head is trained on dense and sparse scores; queries keep their weights."""
    teachers = ["--teacher", f"dense={checkpoints.folder('bert-mean')}", "--teacher", "sparse=builtin:sparse"]
    chosen = ["--base", checkpoints.transformer("bert"), "--epochs", "6", "--batch", "16", "--learning-rate", "3e-3"]

    outcome = cli("distill", "inference-free", rows, *teachers, *chosen, "--out", tmp_path / "out", "--json")

    answer = outcome.json
    assert (answer["rows"], answer["held_out_rows"]) == (108, 12)
    scores = ["--model", teachers[1], "--model", teachers[3], "--align", "min-max", "--out", tmp_path / "scored.jsonl"]
    assert cli("score", rows, *scores).status == 0
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    transformers.set_seed(42)
    start = st_core.SparseEncoder(str(checkpoints.transformer("bert")), device="cpu", init_head=True)
    documents = [row[name] for row in scored for name in ("answer", "negative")]
    before = rank_correlation(inference_free_model(start, documents), scored)
    after = rank_correlation(st_core.SparseEncoder(str(tmp_path / "out"), device="cpu"), scored)
    assert after > before + 0.2
    assert "document_active_terms" in outcome.err
    loaded = oracle.SparseEncoder(str(tmp_path / "out"), device="cpu")
    ours = st_core.SparseEncoder(str(tmp_path / "out"), device="cpu")
    lines = ["copy the file", "a list of values"]
    for name in ("encode_query", "encode_document"):
        found, wanted = getattr(ours, name)(lines), getattr(loaded, name)(lines)
        np.testing.assert_allclose(found.to_dense(), wanted.to_dense().cpu().numpy(), atol=1e-4)
    refused = cli("distill", "inference-free", rows, *teachers[:2], *chosen, "--columns", "query,answer", "--out", "x")
    assert "an ensemble orders two or more documents of each query" in refused.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layers", "--dimensions", "8"], "--dimensions is for static, dimensions, not for layers; leave it out"),
        (["static", "--epochs", "1"], "--epochs is for layers, reranker, inference-free, not for static"),
        (["static", "rows.jsonl"], "DATA is for reranker, inference-free, not for static"),
        (["dimensions", "--document-terms", "9"], "--document-terms is for inference-free, not for dimensions"),
    ],
)
def test_options_that_a_kind_does_not_read_are_refused(cli, tmp_path, arguments, message):
    """Also with the value of their default, before anything is loaded."""
    outcome = cli("distill", *arguments, "--teacher", "absent", "--out", tmp_path / "out")

    assert outcome.status == 2
    assert message in outcome.error_line()
