"""Texts that a training reads again are not tokenized again, and have the same tokens."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("accelerate", reason="the trainers need it")

from hypothesis import given, settings  # noqa: E402 - after the guard
from hypothesis import strategies as st  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core.engine.engine import Engine  # noqa: E402 - after the guard
from st_core.text.tokens import Tokens  # noqa: E402 - after the guard
from st_core.training.losses import dense, reranking  # noqa: E402 - after the guard
from st_core.training.token_rows import OVERHEAD, TokenRows  # noqa: E402 - after the guard
from st_core.training.trainer import (  # noqa: E402 - after the guard
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

pytestmark = pytest.mark.torch

TEXT = st.text("ab:1", max_size=4)
LIMITS = st.sampled_from([0, OVERHEAD + 20, 10**6])
INPUTS = st.lists(st.one_of(TEXT, st.tuples(TEXT, TEXT)), max_size=6)


def numbered(texts):
    """Tokens that no other text has, with types for pairs."""
    listed = [[part for each in ([text] if isinstance(text, str) else text) for part in (*each, "|")] for text in texts]
    ids = [
        np.array([ord(each) for each in row] + [9] * (not isinstance(text, str)), np.int32)
        for text, row in zip(texts, listed, strict=True)
    ]
    has_types = any(not isinstance(text, str) for text in texts)
    return Tokens(ids, [(row * 0 + 1 if row[-1] == 9 else row * 0) for row in ids] if has_types else None)


@settings(deadline=None)
@given(
    st.lists(st.tuples(INPUTS, st.sampled_from([None, "p"])), max_size=5), st.sampled_from([0, OVERHEAD + 20, 10**6])
)
def test_the_tokens_are_those_of_the_texts(calls, limit):
    """In any order, with repetitions, pairs that begin alike, and any limit; each text is computed once below it."""
    rows, computed = TokenRows(limit), []

    for inputs, options in calls:
        found = rows.tokens(inputs, options, lambda texts: computed.extend(texts) or numbered(texts))
        wanted = numbered(inputs)
        assert [each.tolist() for each in found.ids] == [each.tolist() for each in wanted.ids]
        if wanted.types is not None:
            assert [each.tolist() for each in found.types] == [each.tolist() for each in wanted.types]
    distinct = {(options, each) for inputs, options in calls for each in inputs}
    if limit == 10**6:
        assert len(computed) == len(distinct)


ROWS = [{"query": f"question {place}", "answer": f"answer {place % 5} of a fox"} for place in range(12)]


@pytest.fixture
def counted(monkeypatch):
    """The texts that were tokenized."""
    texts: list[object] = []
    plain = Engine.tokenize
    monkeypatch.setattr(
        Engine, "tokenize", lambda self, inputs, options: texts.extend(inputs) or plain(self, inputs, options)
    )
    return texts


def losses(checkpoints, folder, **options):
    """Train a dense model, and return the loss of every step."""
    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    args = SentenceTransformerTrainingArguments(
        str(folder), per_device_train_batch_size=4, logging_steps=1, save_strategy="no", use_cpu=True, **options
    )
    loss = dense.MultipleNegativesRankingLoss(model)
    trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=ROWS, loss=loss)
    torch.manual_seed(0)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("options", [{"num_train_epochs": 3}, {"max_steps": 9}])
def test_a_training_tokenizes_each_text_once(checkpoints, tmp_path, monkeypatch, counted, options):
    """In several epochs; the losses are those of a training that tokenizes every batch."""
    stored = losses(checkpoints, tmp_path / "stored", **options)
    once = sorted(counted)
    counted.clear()
    monkeypatch.setattr("st_core.training.trainer.TokenRows", lambda: None)

    assert losses(checkpoints, tmp_path / "plain", **options) == stored
    assert once == sorted({text for row in ROWS for text in row.values()})
    assert len(counted) == 3 * 2 * len(ROWS)


@pytest.mark.parametrize("options", [{"num_train_epochs": 1}, {"max_steps": 3}])
def test_nothing_is_stored_for_one_epoch(checkpoints, tmp_path, monkeypatch, options):
    """Because no text is read again."""
    monkeypatch.setattr("st_core.training.trainer.TokenRows", lambda: pytest.fail("tokens are stored"))

    losses(checkpoints, tmp_path, **options)


def test_pairs_are_tokenized_once(checkpoints, tmp_path, counted):
    """Those of a cross-encoder, whose loss tokenizes them."""
    model = st_core.CrossEncoder(str(checkpoints.folder("rerank-bert")), device="cpu")
    args = CrossEncoderTrainingArguments(
        str(tmp_path), num_train_epochs=3, per_device_train_batch_size=4, save_strategy="no", use_cpu=True
    )
    rows = [row | {"label": place % 2} for place, row in enumerate(ROWS)]
    loss = reranking.BinaryCrossEntropyLoss(model)
    CrossEncoderTrainer(model=model, args=args, train_dataset=rows, loss=loss).train()

    assert sorted(counted) == sorted((row["query"], row["answer"]) for row in ROWS)
