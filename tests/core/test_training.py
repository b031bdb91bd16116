"""A training here takes the steps of sentence-transformers' trainer, and its model is the same afterwards."""

from __future__ import annotations

import errno
import inspect
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the steps are compared with those of its trainer")
datasets = pytest.importorskip("datasets", reason="its trainer reads its data sets")
yaml = pytest.importorskip("yaml", reason="the metadata of cards is YAML")
pytest.importorskip("accelerate", reason="the trainers need it")

import sentence_transformers.cross_encoder.losses as their_pairs  # noqa: E402 - after the guard
import sentence_transformers.sentence_transformer.losses as their_dense  # noqa: E402 - after the guard
import sentence_transformers.sparse_encoder.losses as their_sparse  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core.distilling import with_layers  # noqa: E402 - after the guard
from st_core.model_card import Origin  # noqa: E402 - after the guard
from st_core.training import trainer as trainers  # noqa: E402 - after the guard
from st_core.training.card import trained_card  # noqa: E402 - after the guard
from st_core.training.form import form_of  # noqa: E402 - after the guard
from st_core.training.losses import dense, reranking, sparse  # noqa: E402 - after the guard

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]

QUERY = ["how to copy a tree", "where is the fox"]
PAIRS = [("where is a tree", "in the garden"), ("what is a fox", "an animal of the forest, quick and brown")]


def rows_of(count=20, **more):
    """Questions and answers of different lengths."""
    return [
        {
            "anchor": f"question {place} about {'trees ' * (place % 4)}",
            "positive": f"answer {place * 7 % 13} {'with more words ' * (place % 3)}",
        }
        | {name: make(place) for name, make in more.items()}
        for place in range(count)
    ]


def without_dropout(module):
    """The module, in which no dropout draws random numbers."""
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
    return module


def arguments(package, kind, folder, **options):
    """Arguments of a short training on the processor."""
    own = {"prompts": ""} if package is trainers else {}
    name = f"{kind}TrainingArguments"
    home = package if package is trainers else oracle
    defaults = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return getattr(home, name)(output_dir=str(folder), **defaults | own | options)


def losses_of(trainer, name="loss"):
    """The values of the log."""
    return [line[name] for line in trainer.state.log_history if name in line]


def train_both(checkpoints, kind, name, make, rows, folder, **options):
    """Train the same checkpoint with both, without dropout; return both trainers and both models."""
    results = []
    for package in (trainers, oracle):
        is_ours = package is trainers
        model = getattr(st_core if is_ours else oracle, kind)(str(checkpoints.folder(name)), device="cpu")
        without_dropout(form_of(model) if is_ours else model)
        table = rows if is_ours else datasets.Dataset.from_list(rows)
        trainer = getattr(package, f"{kind}Trainer")(
            model=model,
            args=arguments(package, kind, folder / str(is_ours), **options),
            train_dataset=table,
            loss=make(model, is_ours),
        )
        trainer.train()
        results.append((trainer, model))
    (ours, model), (theirs, their_model) = results
    return ours, theirs, model, their_model


def test_a_dense_training_takes_their_steps(checkpoints, tmp_path, agree):
    """The loss of every step, and the vectors afterwards, also after saving and loading in both libraries."""

    def make(model, is_ours):
        return (dense if is_ours else their_dense).MultipleNegativesRankingLoss(model)

    ours, theirs, model, their_model = train_both(
        checkpoints, "SentenceTransformer", "bert-mean", make, rows_of(), tmp_path
    )
    before = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu").encode(QUERY)

    assert losses_of(ours) == pytest.approx(losses_of(theirs), rel=1e-4)
    assert len(losses_of(ours)) == 6
    vectors = model.encode(QUERY)
    assert np.abs(vectors - before).max() > 1e-3
    agree(vectors, their_model.encode(QUERY), 1e-4)
    model.save_pretrained(tmp_path / "saved")
    for package in (st_core, oracle):
        agree(package.SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(QUERY), vectors)


def test_a_trained_model_is_an_ordinary_one(checkpoints, tmp_path, agree):
    """It can be pickled and copied, and has another fingerprint; its form stays the same for a second training."""
    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    before, form = st_core.describe(model), form_of(model)
    args = arguments(trainers, "SentenceTransformer", tmp_path, max_steps=2)
    loss = dense.MultipleNegativesRankingLoss(model)
    trainer = trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=rows_of(), loss=loss)

    trainer.train()

    assert st_core.describe(model).fingerprint != before.fingerprint
    agree(pickle.loads(pickle.dumps(model)).encode(QUERY), model.encode(QUERY))
    assert form_of(model) is form
    with torch.no_grad():
        agree(form.eval()(form.preprocess(QUERY))["sentence_embedding"], model.encode(QUERY))


def test_a_sparse_training_takes_their_steps(checkpoints, tmp_path, agree):
    """With the weights of regularizers that rise; active terms are logged."""

    def make(model, is_ours):
        losses = sparse if is_ours else their_sparse
        return losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), 0.1, 0.05)

    ours, theirs, model, their_model = train_both(checkpoints, "SparseEncoder", "splade-max", make, rows_of(), tmp_path)

    for name in ("loss", "base_loss", "document_regularizer_loss", "document_regularizer_weight"):
        assert losses_of(ours, name) == pytest.approx(losses_of(theirs, name), rel=1e-3, abs=2e-4)
    assert all(value > 0 for value in losses_of(ours, "document_active_terms"))
    agree(model.encode(QUERY).to_dense(), their_model.encode(QUERY).to_dense(), 1e-4)


def test_a_training_of_a_reranker_takes_their_steps(checkpoints, tmp_path, agree):
    """With labels from 0 to 1."""

    def make(model, is_ours):
        return (reranking if is_ours else their_pairs).BinaryCrossEntropyLoss(model)

    rows = rows_of(label=lambda place: float(place % 2))
    ours, theirs, model, their_model = train_both(checkpoints, "CrossEncoder", "rerank-bert", make, rows, tmp_path)

    assert losses_of(ours) == pytest.approx(losses_of(theirs), rel=1e-4)
    agree(model.predict(PAIRS), their_model.predict(PAIRS), 1e-4)
    model.save_pretrained(tmp_path / "saved")
    agree(oracle.CrossEncoder(str(tmp_path / "saved"), device="cpu").predict(PAIRS), model.predict(PAIRS))


def resumable(model, folder, **options):
    """A trainer that writes a checkpoint every two steps, with dropout."""
    args = arguments(
        trainers,
        "SentenceTransformer",
        folder,
        save_strategy="steps",
        save_steps=2,
        batch_sampler="no_duplicates",
        **options,
    )
    loss = dense.EmbedDistillLoss(model, projection_dim=5)
    rows = rows_of(label=lambda place: [float(place % 3), 1.0, 0.5, -1.0, place / 20])
    return trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=rows, loss=loss)


def test_a_resumed_training_has_the_same_bits(checkpoints, tmp_path):
    """In the middle of the second epoch; parameters of the loss, dropout and the schedule continue too."""
    folder = str(checkpoints.folder("bert-mean"))
    torch.manual_seed(1)
    whole = resumable(st_core.SentenceTransformer(folder, device="cpu"), tmp_path / "run")
    whole.train()
    wanted = {name: value.clone() for name, value in whole.objective.state_dict().items()}
    for name in ("checkpoint-6",):
        shutil.rmtree(tmp_path / "run" / name)
    torch.manual_seed(2)
    resumed = resumable(st_core.SentenceTransformer(folder, device="cpu"), tmp_path / "run")

    resumed.train(resume_from_checkpoint=True)

    assert losses_of(resumed) == losses_of(whole)
    for name, value in resumed.objective.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_a_checkpoint_is_a_model(checkpoints, tmp_path, agree):
    """Of the parameters at its step; an incomplete one is not resumed from."""
    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    trainer = resumable(model, tmp_path, save_total_limit=2)
    trainer.train()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    agree(oracle.SentenceTransformer(str(tmp_path / "checkpoint-6"), device="cpu").encode(QUERY), model.encode(QUERY))
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match="checkpoint-6: no complete checkpoint"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    with pytest.raises(ValueError, match="no complete checkpoint to resume from"):
        resumable(model, tmp_path / "empty").train(resume_from_checkpoint=True)


@pytest.mark.parametrize(("options", "named"), [({"learning_rate": 1e-2}, "learning_rate"), ({"seed": 3}, "seed")])
def test_a_training_is_not_resumed_with_other_arguments(checkpoints, tmp_path, options, named):
    """The message names the argument and both values."""
    folder = str(checkpoints.folder("bert-mean"))
    resumable(st_core.SentenceTransformer(folder, device="cpu"), tmp_path, max_steps=2).train()
    other = resumable(st_core.SentenceTransformer(folder, device="cpu"), tmp_path, max_steps=2, **options)

    with pytest.raises(ValueError, match=f"differ in {named}: .*, now .*train anew"):
        other.train(resume_from_checkpoint=True)


def test_a_training_is_not_resumed_with_other_data_or_losses(checkpoints, tmp_path):
    """The message names what differs."""
    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    args = arguments(trainers, "SentenceTransformer", tmp_path, max_steps=1, save_strategy="steps", save_steps=1)

    def trainer_of(rows, scale=20.0):
        loss = dense.MultipleNegativesRankingLoss(model, scale)
        return trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=rows, loss=loss)

    trainer_of(rows_of()).train()
    with pytest.raises(ValueError, match=r"differ in data: .*train anew"):
        trainer_of(rows_of(21)).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match=r"differ in losses: .*train anew"):
        trainer_of(rows_of(), 10.0).train(resume_from_checkpoint=True)


def test_a_full_disk_names_the_checkpoint_to_resume_from(checkpoints, tmp_path, monkeypatch):
    """The one that could not be written leaves nothing behind."""
    trainer = resumable(st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu"), tmp_path)
    save = trainer._save

    def fill(folder, state=None):
        save(folder, state)
        if trainer.state.global_step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer, "_save", fill)

    with pytest.raises(OSError, match=r"checkpoint-4: its disk has .*resume from checkpoint-2 with resume_from_check"):
        trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


KILLED = """
import os, signal, sys
import torch
import st_core
from transformers import TrainerCallback
from test_training import resumable

torch.set_num_threads(1)  # as in the process of the tests: sums of several threads differ in the last bit

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

torch.manual_seed(1)
trainer = resumable(st_core.SentenceTransformer(sys.argv[1], device="cpu"), sys.argv[2])
trainer.add_callback(Kill())
trainer.train()
"""


@pytest.mark.long
def test_a_killed_training_ends_with_the_same_weights(checkpoints, tmp_path):
    """Its process ends at step 5 of 6; another one resumes from the checkpoint at step 4."""
    folder = str(checkpoints.folder("bert-mean"))
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, folder, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    torch.manual_seed(1)
    whole = resumable(st_core.SentenceTransformer(folder, device="cpu"), tmp_path / "whole")
    whole.train()
    torch.manual_seed(2)
    resumed = resumable(st_core.SentenceTransformer(folder, device="cpu"), tmp_path / "run")

    resumed.train(resume_from_checkpoint=True)

    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    wanted = whole.objective.state_dict()
    for name, value in resumed.objective.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_a_training_reads_a_file(checkpoints, tmp_path):
    """With the same steps as its rows."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of()))
    values = []
    for place, data in enumerate((rows_of(), str(tmp_path / "rows.jsonl"))):
        model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
        without_dropout(form_of(model))
        args = arguments(trainers, "SentenceTransformer", tmp_path / str(place), max_steps=2)
        loss = dense.MultipleNegativesRankingLoss(model)
        trainer = trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=data, loss=loss)
        trainer.train()
        values.append(losses_of(trainer))

    assert values[0] == values[1]
    assert len(values[0]) == 2


def test_a_loss_of_a_user_trains_the_model(checkpoints, tmp_path):
    """One that calls its model as one of sentence-transformers; its own parameters are trained too."""

    class Mine(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, sentence_features, labels):
            first, second = (self.model(each)["sentence_embedding"] for each in sentence_features)
            return ((first - second) ** 2).mean() * self.weight

    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    before = model.encode(QUERY)
    args = arguments(trainers, "SentenceTransformer", tmp_path, max_steps=2)
    trainer = trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=rows_of(), loss=Mine)

    trainer.train()

    assert np.abs(model.encode(QUERY) - before).max() > 1e-4
    assert float(trainer.loss.weight.detach()) != 1.0


@pytest.mark.parametrize("best", [2, 6])
def test_an_evaluator_gets_the_model_of_its_step(checkpoints, tmp_path, best):
    """The best model by its primary metric is the one that stays, also if it is the last one."""

    class Counting:
        primary_metric = "mine"

        def __init__(self):
            self.vectors = []

        def __call__(self, model, output_path=None, epoch=-1, steps=-1):
            self.vectors.append(model.encode(QUERY))
            return {"mine": 1.0 if steps == best else 0.0}

    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    evaluator = Counting()
    args = arguments(
        trainers,
        "SentenceTransformer",
        tmp_path,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
    )
    loss = dense.MultipleNegativesRankingLoss(model)
    trainer = trainers.SentenceTransformerTrainer(
        model=model, args=args, train_dataset=rows_of(), eval_dataset=rows_of(6), loss=loss, evaluator=evaluator
    )

    trainer.train()

    first, second, third = evaluator.vectors
    assert np.abs(first - second).max() > 1e-4
    assert np.abs(second - third).max() > 1e-5
    assert np.abs(model.encode(QUERY) - {2: first, 6: third}[best]).max() < 1e-5
    state = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / f"checkpoint-{best}")
    assert trainer.state.best_metric == 1.0
    assert len(losses_of(trainer, "eval_loss")) == len(losses_of(trainer, "eval_mine")) == 3


def test_a_loss_that_is_no_number_stops_the_training(checkpoints, tmp_path):
    """The message names the step and the rows; the state before it is saved."""

    class Broken(dense.MultipleNegativesRankingLoss):
        calls = 0

        def compute_loss_from_embeddings(self, embeddings, labels=None):
            Broken.calls += 1
            factor = float("nan") if Broken.calls == 3 else 1.0
            return super().compute_loss_from_embeddings(embeddings, labels) * factor

    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    args = arguments(trainers, "SentenceTransformer", tmp_path)
    trainer = trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=rows_of(), loss=Broken(model))

    with pytest.raises(
        FloatingPointError, match=r"the loss is nan after step 2, in rows \d+(, \d+){3}; .*checkpoint-2"
    ):
        trainer.train()
    assert (tmp_path / "checkpoint-2" / "trainer_state.json").is_file()


THEIR_PATHS = [
    ("", "SentenceTransformerTrainer SparseEncoderTrainer CrossEncoderTrainer SentenceTransformerTrainingArguments"),
    ("sentence_transformer.losses", "MultipleNegativesRankingLoss MatryoshkaLoss TripletDistanceMetric"),
    ("sparse_encoder.losses", "SpladeLoss SparseMultipleNegativesRankingLoss FlopsLoss"),
    ("cross_encoder.losses", "BinaryCrossEntropyLoss LambdaLoss NDCGLoss2PPScheme PListMLELambdaWeight"),
    ("sentence_transformer.trainer", "SentenceTransformerTrainer"),
    (
        "sentence_transformer.training_args",
        "SentenceTransformerTrainingArguments BatchSamplers MultiDatasetBatchSamplers",
    ),
    ("cross_encoder.trainer", "CrossEncoderTrainer"),
    ("sparse_encoder.training_args", "SparseEncoderTrainingArguments"),
    ("sparse_encoder.callbacks.splade_callbacks", "SpladeRegularizerWeightSchedulerCallback"),
    ("base.sampler", "DefaultBatchSampler NoDuplicatesBatchSampler ProportionalBatchSampler"),
]


@pytest.mark.parametrize(("path", "names"), THEIR_PATHS)
def test_scripts_of_theirs_change_their_imports_alone(path, names):
    """The names are under their paths, and the arguments that both have come first, in the same order."""
    for name in names.split():
        mine, theirs = (
            getattr(import_module(f"{package}.{path}".rstrip(".")), name)
            for package in ("st_core", "sentence_transformers")
        )
        if name.endswith(("Trainer", "Loss")):
            own, wanted = (list(inspect.signature(each.__init__).parameters) for each in (mine, theirs))
            assert own[: len(wanted)] == wanted or {"args", "kwargs"} <= set(own)


def test_the_losses_are_an_attribute_of_the_package():
    """As in scripts of sentence-transformers."""
    assert st_core.losses.CoSENTLoss is dense.CoSENTLoss
    assert "SentenceTransformerTrainer" in dir(st_core)
    assert "SentenceTransformerTrainer" not in st_core.__all__  # a star import needs no torch


BASE_CARD = """---
license: apache-2.0
language: [en, sr]
tags: [mteb]
model-index: [{name: base, results: []}]
---
# Base

Its nDCG@10 is 0.9.
"""


@pytest.mark.parametrize(
    ("card", "metadata", "is_made"),
    [
        (BASE_CARD, {"language": ["en", "sr"], "license": "apache-2.0"}, False),
        (BASE_CARD, {"language": ["en", "sr"], "license": "apache-2.0"}, True),
        ("---\nlicense: 2024-01-01\nlanguage: [en, no]\n---\n", {}, False),
        ("---\nlicense: [\n---\n", {}, False),
        (None, {}, False),
    ],
)
def test_the_card_of_the_base_is_not_that_of_the_trained_model(checkpoints, tmp_path, card, metadata, is_made):
    """Its results and tags are not repeated; its language and license are, also of a model with fewer layers."""
    shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "base")
    (tmp_path / "base" / "README.md").unlink(missing_ok=True)
    if card is not None:
        (tmp_path / "base" / "README.md").write_text(card)
    model = st_core.SentenceTransformer(str(tmp_path / "base"), device="cpu")
    if is_made:
        model = with_layers(model, 1)
    args = arguments(trainers, "SentenceTransformer", tmp_path, max_steps=1, save_strategy="steps", save_steps=1)

    loss = dense.MultipleNegativesRankingLoss(model)
    trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=rows_of(), loss=loss).train()

    model.save_pretrained(tmp_path / "saved")
    for folder in (tmp_path / "saved", next(tmp_path.glob("**/checkpoint-1"))):
        text = (folder / "README.md").read_text()
        assert yaml.safe_load(text.split("---")[1]) == {"library_name": "sentence-transformers"} | metadata
        assert text.partition("---\n\n")[2].startswith(
            "# SentenceTransformer trained from base\n\n"
            "Load its folder with `SentenceTransformer` of `st_core` or of `sentence_transformers`.\n\n## Training\n"
        )


def test_the_card_names_a_base_on_the_hub_and_what_the_caller_sets():
    """In its metadata."""
    data = st_core.SentenceTransformerModelCardData(language="de", model_name="Mine", base_model=["a/b", "c/d"])

    plain = trained_card("SentenceTransformer", Origin("an/encoder", {"language": "en"}), None, "")
    chosen = trained_card("SentenceTransformer", Origin("an/encoder", {"language": "en", "license": "mit"}), data, "")

    wanted = {"library_name": "sentence-transformers", "base_model": "an/encoder", "language": "en"}
    assert yaml.safe_load(plain.split("---")[1]) == wanted
    assert yaml.safe_load(chosen.split("---")[1]) == {
        "library_name": "sentence-transformers",
        "base_model": ["a/b", "c/d"],
        "language": "de",
        "license": "mit",
    }
    assert "\n# Mine\n" in chosen
    assert "base_model" not in trained_card("SentenceTransformer", Origin("builtin:dense", {}), None, "")


def test_the_card_says_what_was_trained_and_measured(checkpoints, tmp_path):
    """Once, also after a second training."""
    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    loss = dense.MultipleNegativesRankingLoss(model)
    for steps in (1, 2):
        args = arguments(
            trainers, "SentenceTransformer", tmp_path, max_steps=steps, eval_strategy="steps", eval_steps=steps
        )
        trainers.SentenceTransformerTrainer(
            model=model, args=args, train_dataset=rows_of(), eval_dataset=rows_of(6), loss=loss
        ).train()

    model.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()

    assert "\n---\n\n# SentenceTransformer trained from bert-mean\n\n" in card
    assert "/" not in card.partition("## Training")[0]
    assert card.count("## Training") == 1
    assert "20 rows of `anchor`, `positive`" in card
    assert '`MultipleNegativesRankingLoss` with `{"scale": 20.0' in card
    assert "`max_steps=2`" in card
    assert "| eval_loss |" in card
