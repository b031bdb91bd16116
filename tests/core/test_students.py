"""Students are parts of their teachers, and training brings them closer."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the results are loaded with it")
pytest.importorskip("accelerate", reason="the trainers need it")

from conftest import as_array  # noqa: E402 - after the guard
from families import documentation  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core.distilling.inference_free import (  # noqa: E402
    document_frequency_weights,
    inference_free_model,
    train_on_ensemble,
)
from st_core.distilling.layers import evenly_spaced, with_layers  # noqa: E402 - after the guard
from st_core.distilling.students import Training, rank_correlation, train_on_scores, train_on_vectors  # noqa: E402
from st_core.distilling.texts import split_held_out  # noqa: E402 - after the guard
from st_core.distilling.vectors import mean_cosine  # noqa: E402 - after the guard
from st_core.distilling.vocabulary import pruned_tokenizer, tokens_in_use, with_vocabulary  # noqa: E402
from st_core.mining.scoring import scored_rows  # noqa: E402 - after the guard

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*lr_scheduler.*:UserWarning")]

DENSE, SPARSE, CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"
FAST = Training(epochs=4, batch=16, learning_rate=2e-3)


@pytest.fixture(scope="session")
def texts():
    """Return lines of documentation, all different."""
    lines = (line.strip() for text in documentation() for line in text.splitlines())
    return [line for line in dict.fromkeys(lines) if len(line.split()) > 4][:160]


def assert_loads_in_both(model, folder, agree, texts, wanted):
    """Save a model; both libraries load it with the same numbers."""
    model.save_pretrained(folder)
    for package in (oracle, st_core):
        loaded = getattr(package, type(model).__name__)(str(folder), device="cpu")
        agree(loaded.predict(texts) if hasattr(loaded, "predict") else loaded.encode(texts), wanted)


@given(st.data())
def test_layers_are_evenly_spaced(data):
    """From the first to the last, each once."""
    total = data.draw(st.integers(1, 40))
    count = data.draw(st.integers(1, total))

    places = evenly_spaced(count, total)

    assert len(set(places)) == len(places) == count
    assert list(places) == sorted(places)
    assert places[0] == 0
    if count > 1:
        assert places[-1] == total - 1
        gaps = np.diff(places)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("name", "path"),
    [("bert-mean", "encoder.layer"), ("distilbert-cls", "transformer.layer"), ("mpnet-max", "encoder.layer")],
)
def test_a_cut_transformer_computes_the_layers_that_are_left(checkpoints, agree, tmp_path, texts, name, path):
    """As the oracle's model without the others; prompts stay."""
    theirs, model = checkpoints.own_pair(DENSE, name)
    owner, _, last = path.rpartition(".")
    parent = theirs[0].model.get_submodule(owner)
    setattr(parent, last, torch.nn.ModuleList([getattr(parent, last)[1]]))
    wanted = theirs.encode(texts[:12])

    student = with_layers(model, [1])

    agree(student.encode(texts[:12]), wanted)
    assert (student.prompts, student.similarity_fn_name) == (model.prompts, model.similarity_fn_name)
    assert_loads_in_both(student, tmp_path / "out", agree, texts[:12], wanted)
    assert np.abs(model.encode(texts[:12]) - wanted).max() > 1e-3


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (3, "expected 1 to 2 layers, those of the model, got 3"),
        ([0, 2], "expected ascending numbers of layers from 0 to 1, got 0, 2"),
        ([1, 0], "expected ascending numbers of layers from 0 to 1, got 1, 0"),
    ],
)
def test_layers_that_do_not_exist_are_refused(checkpoints, layers, message):
    """With the numbers that do."""
    with pytest.raises(ValueError, match=message):
        with_layers(checkpoints.load(st_core, DENSE, "bert-mean"), layers)


def test_a_layer_that_cannot_take_the_place_of_another_is_refused(checkpoints):
    """ModernBERT's first layer has one normalisation less."""
    model = checkpoints.load(st_core, DENSE, "modernbert-cls")
    with pytest.raises(ValueError, match="layer 1 has other weights than layer 0, whose place it would take"):
        with_layers(model, [1])


def test_a_model_without_a_transformer_is_refused():
    """By its number of transformers."""
    with pytest.raises(ValueError, match="expected a model with one transformer, got 0"):
        with_layers(st_core.SentenceTransformer("builtin:dense"), 1)


def test_a_pruned_vocabulary_changes_no_vector_of_its_texts(checkpoints, agree, tmp_path, texts):
    """Also after saving, in both libraries; other texts are spelt with the tokens that are left."""
    model = checkpoints.load(st_core, DENSE, "bert-mean")
    tokenizer = model._current().outline(None).tokenizer
    own = texts[:40]
    kept = tokens_in_use(tokenizer, own)

    student = with_vocabulary(model, kept)

    of_prompts = {tokenizer.token(index) for row in tokenizer.plain(list(model.prompts.values())) for index in row}
    known = student.backend_tokenizer.get_vocab()
    assert known.keys() == {*kept, *of_prompts}
    assert sorted(known, key=known.__getitem__) == sorted(known, key=tokenizer.backend.token_to_id)
    assert len(known) < tokenizer.vocabulary_size
    agree(student.encode(own), model.encode(own))
    assert_loads_in_both(student, tmp_path / "out", agree, texts, student.encode(texts))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == len(known)
    unknown = student.backend_tokenizer.token_to_id("[UNK]")
    assert unknown not in student.preprocess(["never heard of zygomorphic"])["input_ids"][0].tolist()


def test_the_tokens_of_prompts_stay_in_a_pruned_vocabulary(checkpoints, agree):
    """Texts with a prompt have the same vectors, and the settings of the student are its own."""
    _, model = checkpoints.own_pair(DENSE, "bert-mean")
    model.prompts["query"] = "copy number: "
    tokenizer = model._current().outline(None).tokenizer

    student = with_vocabulary(model, tokens_in_use(tokenizer, ["a list of values"]))

    agree(student.encode_query(["a list of values"]), model.encode_query(["a list of values"]))
    student.prompts["query"] = "other: "
    assert model.prompts["query"] == "copy number: "


def test_rows_without_a_score_for_each_document_are_refused(checkpoints):
    """With what the rows need."""
    model = checkpoints.load(st_core, CROSS, "rerank-bert")
    row = {"query": "a tree", "positive": "in the garden", "negative": "a fox", "score": 0.5}
    with pytest.raises(ValueError, match="a row has 1 scores for 2 documents; pass rows that st-connectors score has"):
        rank_correlation(model, [row])
    with pytest.raises(ValueError, match="each row needs scores, one for each document; pass rows that"):
        train_on_ensemble(model, [row], Training(), 10)


def test_the_most_frequent_tokens_are_kept(checkpoints):
    """Up to the size, after special tokens and characters."""
    tokenizer = checkpoints.load(st_core, DENSE, "bert-mean")._current().outline(None).tokenizer
    least = tokens_in_use(tokenizer, [])
    texts = ["copy the file", "copy the list", "copy the file list", "return a value"]

    kept = tokens_in_use(tokenizer, texts, len(least) + 3)

    counts = {}
    for row in tokenizer.plain(texts):
        for token in map(tokenizer.token, row.tolist()):
            counts[token] = counts.get(token, 0) + 1
    others = sorted((token for token in counts if token not in least), key=lambda token: -counts[token])
    assert {counts[token] for token in set(kept) - set(least)} <= {counts[token] for token in others[:3]}
    assert len(kept) == len(least) + 3
    with pytest.raises(ValueError, match=f"a vocabulary needs at least the {len(least)} special tokens and characters"):
        tokens_in_use(tokenizer, texts, 3)


def test_other_tokenizers_are_refused(checkpoints):
    """One line says which kind can be pruned."""
    with pytest.raises(st_core.ModelUnsupported, match="its tokenizer is not of WordPiece"):
        with_vocabulary(checkpoints.load(st_core, DENSE, "roberta-six"), ["a"])
    with pytest.raises(st_core.ModelUnsupported, match=r"expected a tokenizer of WordPiece, .*, got BPE"):
        pruned_tokenizer('{"model": {"type": "BPE"}}', {})
    with pytest.raises(ValueError, match="does not know the token 'zygomorphic'"):
        with_vocabulary(checkpoints.load(st_core, DENSE, "bert-mean"), ["zygomorphic"])


def test_training_brings_a_cut_student_closer(checkpoints, agree, tmp_path, texts):
    """On texts that are held out; no epochs change nothing."""
    teacher = checkpoints.load(st_core, DENSE, "bert-mean")
    train, test = split_held_out(texts, 0.25)
    student = with_layers(teacher, [1])
    wanted, before = teacher.encode_document(test), student.encode_document(test)

    train_on_vectors(student, teacher, train, Training(epochs=0))
    np.testing.assert_array_equal(student.encode_document(test), before)
    train_on_vectors(student, teacher, train, FAST)

    assert mean_cosine(wanted, student.encode_document(test)) > mean_cosine(wanted, before)
    assert_loads_in_both(student, tmp_path / "out", agree, test, student.encode(test))


@pytest.mark.parametrize("documents", [["document"], ["document", "negative"]])
def test_a_reranker_learns_the_scores_of_another(checkpoints, agree, tmp_path, texts, documents):
    """By its scores, or the margins between them; the order becomes like the teacher's."""
    teacher = checkpoints.load(st_core, CROSS, "rerank-bert")
    plain = [
        {"query": texts[place], **{name: texts[(place * 7 + index + 1) % 160] for index, name in enumerate(documents)}}
        for place in range(160)
    ]
    rows = list(scored_rows(plain, [teacher], "query", documents))
    student = with_layers(teacher, [1])
    before = rank_correlation(student, rows)

    loss = train_on_scores(student, rows, replace(FAST, epochs=12))

    assert loss == ("MSELoss" if len(documents) == 1 else "MarginMSELoss")
    assert rank_correlation(teacher, rows) == pytest.approx(1)
    assert rank_correlation(student, rows) > before + 0.1
    pairs = [(row["query"], row["document"]) for row in rows[:9]]
    assert_loads_in_both(student, tmp_path / "out", agree, pairs, student.predict(pairs))


def test_queries_without_inference_are_weighted_by_rarity(checkpoints, agree, tmp_path, texts):
    """Documents are those of the masked language model, with the logarithm applied twice; both libraries agree."""
    folder = str(checkpoints.transformer("bert", "ForMaskedLM"))
    documents = st_core.SparseEncoder(folder, device="cpu")

    model = inference_free_model(documents, texts)

    tokenizer = documents._current().outline(None).tokenizer
    rows = tokenizer.plain(["copy the file"])[0].tolist()
    within = [sum(index in row for row in map(list, tokenizer.plain(texts))) for index in rows]
    wanted = np.zeros(tokenizer.vocabulary_size)
    wanted[rows] = [np.log(1 + (len(texts) - each + 0.5) / (each + 0.5)) for each in within]
    agree(as_array(model.encode_query(["copy the file"]))[0], wanted)
    agree(model.encode_document(texts[:5]), np.log1p(as_array(documents.encode(texts[:5]))))
    assert (document_frequency_weights(tokenizer, texts, len(wanted))[sorted(tokenizer.special_ids)] == 0).all()
    model.save_pretrained(tmp_path / "out")
    for package in (oracle, st_core):
        loaded = package.SparseEncoder(str(tmp_path / "out"), device="cpu")
        agree(loaded.encode_query(texts[:5]), model.encode_query(texts[:5]))
        agree(loaded.encode_document(texts[:5]), model.encode_document(texts[:5]))


def test_rank_correlation_is_that_of_scipy(checkpoints):
    """Within rows of several documents, the mean of the row is left out."""
    from scipy.stats import spearmanr

    model = checkpoints.load(st_core, CROSS, "rerank-bert")
    rows = [
        {"query": "where is the tree", "a": "a tree", "b": "the file is here", "scores": [0.5, 2.0]},
        {"query": "what is a list", "a": "a list of files", "b": "copy", "scores": [7.0, 3.0]},
        {"query": "copy", "a": "copy a tree", "b": "number", "scores": [1.0, 1.5]},
    ]

    pairs = [(row["query"], row[name]) for row in rows for name in "ab"]
    logits = model.predict(pairs, activation_fn=copy.copy).reshape(3, 2)
    scores = np.array([row["scores"] for row in rows])
    wanted = spearmanr(
        (logits - logits.mean(1, keepdims=True)).ravel(), (scores - scores.mean(1, keepdims=True)).ravel()
    )
    assert rank_correlation(model, rows) == pytest.approx(wanted.statistic, abs=1e-6)
