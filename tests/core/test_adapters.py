"""Adapters are trained in place of weights, continued with the same bits, and saved for both libraries."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the results are loaded with it")
peft = pytest.importorskip("peft", reason="it makes the adapters")
pytest.importorskip("accelerate", reason="the trainers need it")

import st_core  # noqa: E402 - after the guard
from st_core.training.form import form_of  # noqa: E402 - after the guard
from st_core.training.losses import dense, reranking, sparse  # noqa: E402 - after the guard

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*lr_scheduler.*:UserWarning")]

DENSE, SPARSE, CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"
TEXTS = ["how to copy a tree", "where is the fox", "a list of files and their numbers"]
PAIRS = [("where is a tree", text) for text in TEXTS]
ROWS = [
    {"query": f"where is the {word}", "answer": f"the {word} is {place * 7 % 5} steps away"}
    for place, word in enumerate("tree file list number fox copy sort word name value text line".split())  # noqa: SIM905
]


def config(**options):
    """A small adapter that is not without effect."""
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], **options)


def trainer_of(model, folder, loss, **options):
    """A trainer of a few steps, with dropout."""
    kind, is_pairs = type(model).__name__, isinstance(model, st_core.CrossEncoder)
    rows = [{**row, "label": place % 2} for place, row in enumerate(ROWS)] if is_pairs else ROWS
    defaults = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True}
    more = {"save_strategy": "no", "disable_tqdm": True, "report_to": "none"}
    args = getattr(st_core, f"{kind}TrainingArguments")(output_dir=str(folder), **defaults | more | options)
    return getattr(st_core, f"{kind}Trainer")(model=model, args=args, train_dataset=rows, loss=loss(model))


def numbers(model):
    """What a model computes, as an array."""
    values = model.predict(PAIRS) if hasattr(model, "predict") else model.encode(TEXTS)
    return np.asarray(values.to_dense()) if hasattr(values, "to_dense") else values


def splade(model):
    """A loss of a sparse model."""
    return sparse.SpladeLoss(model, sparse.SparseMultipleNegativesRankingLoss(model), document_terms=50, query_terms=20)


MODELS = [
    (DENSE, "bert-mean", dense.MultipleNegativesRankingLoss),
    (SPARSE, "splade-max", splade),
    (CROSS, "rerank-bert", reranking.BinaryCrossEntropyLoss),
]


@pytest.mark.parametrize(("kind", "name", "loss"), MODELS)
def test_only_adapter_and_head_are_trained_and_saved(checkpoints, agree, tmp_path, kind, name, loss):
    """The saved folder has the numbers of the trained model in both libraries, also merged."""
    _, model = checkpoints.own_pair(kind, name)
    start = numbers(model)
    model.add_adapter(config())
    trainer = trainer_of(model, tmp_path / "run", loss)
    before = {each: value.detach().clone() for each, value in form_of(model).named_parameters()}
    agree(numbers(model), start)

    trainer.train()

    changed = {
        each for each, value in form_of(model).named_parameters() if not torch.equal(value.detach(), before[each])
    }
    others = {each for each in changed if "lora_" not in each}
    assert any("lora_" in each for each in changed)
    assert all("classifier" in each or ".pooler." in each for each in others)
    assert bool(others) == (kind == CROSS)
    trained = numbers(model)
    assert np.abs(trained - start).max() > 1e-3
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "adapter_config.json").is_file() == (kind != CROSS)
    model.merge_adapter()
    agree(numbers(model), trained)
    model.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    for folder in ("saved", "merged"):
        for package in (oracle, st_core):
            agree(numbers(getattr(package, kind)(str(tmp_path / folder), device="cpu")), trained, 1e-4)


@pytest.mark.parametrize(("kind", "name", "loss"), MODELS[::2])
def test_a_resumed_training_of_an_adapter_ends_with_the_same_bits(checkpoints, tmp_path, kind, name, loss):
    """With dropout in model and adapter; the checkpoint loads as a model."""
    ended = []
    for resumes in (False, True):
        torch.manual_seed(5)
        _, model = checkpoints.own_pair(kind, name)
        model.add_adapter(config(lora_dropout=0.1))
        folder = tmp_path / "run"
        if resumes:
            torch.manual_seed(9)
        trainer = trainer_of(model, folder, loss, save_strategy="steps", save_steps=2)
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resumes else None)
        ended.append({each: value.detach().clone() for each, value in form_of(model).named_parameters()})

    assert ended[0].keys() == ended[1].keys()
    assert [each for each, value in ended[0].items() if not torch.equal(value, ended[1][each])] == []
    assert np.isfinite(numbers(getattr(st_core, kind)(str(tmp_path / "run" / "checkpoint-2"), device="cpu"))).all()
    _, other = checkpoints.own_pair(kind, name)
    other.add_adapter(peft.LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(ValueError, match="differ in adapters"):
        trainer_of(other, tmp_path / "run", loss).train(resume_from_checkpoint=True)


def test_a_new_head_is_trained_with_the_adapter(checkpoints, agree, tmp_path):
    """And saved merged, because its base model has no head."""
    model = st_core.SparseEncoder(str(checkpoints.transformer("bert")), device="cpu", init_head=True)
    model.add_adapter(config())
    before = {name: value.detach().clone() for name, value in form_of(model).named_parameters()}

    trainer_of(model, tmp_path / "run", splade).train()

    changed = [
        name for name, value in form_of(model).named_parameters() if not torch.equal(value.detach(), before[name])
    ]
    assert any("cls.predictions.transform" in name for name in changed)
    assert not any("embeddings" in name for name in changed)
    model.save_pretrained(tmp_path / "saved")
    for package in (oracle, st_core):
        agree(numbers(package.SparseEncoder(str(tmp_path / "saved"), device="cpu")), numbers(model), 1e-4)


def test_an_adapter_of_all_layers_loads_into_a_base_with_a_pooler(checkpoints, agree, tmp_path):
    """The trained transformer leaves the pooler out, and the adapter has nothing for it."""
    _, model = checkpoints.own_pair(DENSE, "bert-mean")
    model.add_adapter(peft.LoraConfig(r=2, target_modules="all-linear"))

    trainer_of(model, tmp_path / "run", dense.MultipleNegativesRankingLoss).train()

    model.save_pretrained(tmp_path / "saved")
    for package in (oracle, st_core):
        agree(numbers(package.SentenceTransformer(str(tmp_path / "saved"), device="cpu")), numbers(model), 1e-4)


def test_what_is_no_adapter_is_refused(checkpoints):
    """And a second one."""
    _, model = checkpoints.own_pair(DENSE, "bert-mean")
    with pytest.raises(TypeError, match="expected a configuration of peft such as LoraConfig, got a dict"):
        model.add_adapter({"r": 4})
    model.add_adapter(config())
    with pytest.raises(ValueError, match="the model has an adapter already"):
        model.add_adapter(config())
    model.merge_adapter()


def test_a_training_of_a_new_head_is_resumed(checkpoints, tmp_path):
    """Its base model is a temporary folder, which is another one in each process."""
    for resumes in (False, True):
        torch.manual_seed(5)
        model = st_core.SparseEncoder(str(checkpoints.transformer("bert")), device="cpu", init_head=True)
        model.add_adapter(config())
        trainer = trainer_of(model, tmp_path / "run", splade, save_strategy="steps", save_steps=2)
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2") if resumes else None)

    assert trainer.state.global_step == 4


def test_an_adapter_of_an_adapter_is_saved_merged(checkpoints, agree, tmp_path):
    """An adapter names one base model, which has none; after merging, a model may be adapted again."""
    _, model = checkpoints.own_pair(DENSE, "bert-mean")
    model.add_adapter(config())
    trainer_of(model, tmp_path / "run", dense.MultipleNegativesRankingLoss).train()
    model.save_pretrained(tmp_path / "first")
    second = st_core.SentenceTransformer(str(tmp_path / "first"), device="cpu")
    second.add_adapter(config())
    trainer_of(second, tmp_path / "run", dense.MultipleNegativesRankingLoss).train()
    second.save_pretrained(tmp_path / "second")
    before = numbers(model)

    model.merge_adapter()

    agree(numbers(model), before, 1e-4)
    model.add_adapter(config())
    trainer_of(model, tmp_path / "run", dense.MultipleNegativesRankingLoss).train()
    model.save_pretrained(tmp_path / "third")
    for folder, trained in (("second", second), ("third", model)):
        assert np.abs(numbers(trained) - before).max() > 1e-3
        for package in (oracle, st_core):
            agree(numbers(package.SentenceTransformer(str(tmp_path / folder), device="cpu")), numbers(trained), 1e-4)


@pytest.mark.parametrize("options", [{"modules_to_save": ["pooler"]}, {"trainable_token_indices": [1, 2]}])
def test_further_modules_of_peft_are_refused(checkpoints, options):
    """Before the training, at whose end they could not be saved."""
    _, model = checkpoints.own_pair(DENSE, "bert-mean")
    with pytest.raises(ValueError, match=f"{next(iter(options))} is not supported; leave it out"):
        model.add_adapter(config(**options))
